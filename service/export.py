"""A version as files that others can load: its weights, or a program, and what both of them mean."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor
from torch.export import ExportedProgram

from models.base import OnlineModel
from models.errors import NotExportable
from models.exporting import check, export as export_program, first_line
from models.inputs import Batch, prepared_example
from service.checkpointing import Shaping
from service.learning.arithmetic import use_deterministic_torch
from service.reading import reading
from service.replay import rebuild
from service.store import FeedbackLog, StoreError, Version
from service.store.embedded.directory import write_durably

Format = Literal["safetensors", "torch", "onnx"]
SUFFIXES: Mapping[Format, str] = {"safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}
CHECKED_ON = 64  # of the latest instances in the log


def export(data: Path, number: int | None, output: Path, format: Format) -> Path:
    """Write a version, the newest where none is named, and a JSON file that says what it is; return the file.

    Raises NotExportable, StoreError, and SpecificationError where the model can't be built here.
    """
    file, about = _files(output, format)
    with reading(data, number) as (records, version):
        use_deterministic_torch(records.settings.threads)
        model = rebuild(records, version).model.cpu().eval()
        prepared = _instances(model, records.feedback)
    described = _about(version, records.shaping, model)
    if format == "safetensors":
        content = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, {"sha256": version.sha256})
    else:
        content = _program(model, prepared, format)
        described |= _signature(model, prepared)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_durably(file, content)
    write_durably(about, json.dumps({**described, "format": format, "file": file.name}, indent=2).encode())
    return file


def _files(output: Path, format: Format) -> tuple[Path, Path]:
    """Return the file to write and the one that describes it. Raises StoreError where one is there already."""
    suffix = SUFFIXES[format]
    file = output if output.suffix == suffix else output / f"model{suffix}"
    about = file.with_suffix(".json")
    for path in (file, about):
        if path.exists():
            raise StoreError(f"{path} is there already")
    return file, about


def _instances(model: OnlineModel, feedback: FeedbackLog) -> list[Any]:
    """Return the latest instances in the log, prepared; the input's own example where there is none."""
    entries = [entry for entry in feedback.read(feedback.end() - CHECKED_ON, CHECKED_ON) if entry.kind == "feedback"]
    kind = model.input
    instances = [kind.load(entry.instance) for entry in entries]
    return [kind.prepare(instance) for instance in instances] or [prepared_example(kind)]


def _about(version: Version, shaping: Shaping, model: OnlineModel) -> dict[str, Any]:
    return {
        "everlearn": installed_version("everlearn"),
        "version": version.version,
        "sha256": version.sha256,
        "created_at": datetime.fromtimestamp(version.created_at, UTC).isoformat(timespec="seconds"),
        "task": model.head.task,
        "labels": model.head.labels,
        "model": shaping["model"],
        "learning": shaping["learning"],
        "metrics": version.metrics,
    }


def _signature(model: OnlineModel, prepared: Sequence[Any]) -> dict[str, Any]:
    """Return the tensors that go in and come out: name, type, and shape with "batch" for the number of instances."""
    batch = model.collate(prepared[:1])
    with torch.no_grad():
        answers = model.head.as_tensors(model(batch))
    return {"inputs": _shapes(batch), "outputs": _shapes(answers)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        name: {"type": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}
        for name, tensor in tensors.items()
    }


def _program(model: OnlineModel, prepared: Sequence[Any], format: Format) -> bytes:
    """Return the model as a program that gives the answers which the model gives. Raises NotExportable."""
    exported = export_program(model, prepared)
    if format == "onnx":
        return _onnx(model, prepared, exported)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


def _onnx(model: OnlineModel, prepared: Sequence[Any], exported: ExportedProgram) -> bytes:
    """Return a program in ONNX, run once in onnxruntime and compared. Raises NotExportable."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it, and would say so in many lines
    except ImportError as exc:
        raise NotExportable(f"{exc.name} is not installed: pip install 'everlearn[export]'") from exc
    for name in ("onnx_ir", "onnxscript"):  # they tell of each step
        logging.getLogger(name).setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(3)
    (batch,) = exported.example_inputs[0]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own future
        outputs = list(model.head.as_tensors(model(batch)))
        try:
            program = torch.onnx.export(
                exported, (batch,), dynamo=True, verbose=False, input_names=list(batch), output_names=outputs
            )
        except Exception as exc:  # an operation that ONNX does not have, or its limit of 2 GB
            raise NotExportable(f"ONNX can't express the model: {first_line(exc)}") from exc
    assert program is not None, "it is asked for the program, not for a file"
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content)

    def run(batch: Batch) -> dict[str, Tensor]:
        found = session.run(outputs, {name: tensor.numpy() for name, tensor in batch.items()})
        return dict(zip(outputs, map(torch.from_numpy, found), strict=True))

    check(model, prepared, run)
    return content
