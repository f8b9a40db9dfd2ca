"""Exported versions, loaded in a process that has nothing of everlearn, say what /predict says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from models.registry import build_model
from service.demo.pictures import LOOKS, draw
from service.demo.zeroshot import encoded
from service.processes import EXIT_CONFIG
from service.templates import render
from tests.running import DIGITS, RunningService, everlearn, learn

Items = list[tuple[Any, Any]]

RECORD = {
    "input": {"kind": "record", "fields": {"age": "number", "city": "string", "member": "boolean"}},
    "encoder": {"name": "tabular"},
}
# As docs/operations.md describes what goes in.
LOAD = """
import base64, hashlib, io, json, math, pathlib, sys
import numpy as np
file, instances = pathlib.Path(sys.argv[1]), json.loads(sys.stdin.read())
about = json.loads(file.with_suffix(".json").read_text())
given = about["model"]["input"]

def code(name, value):
    if value is None:
        return -1
    digest = hashlib.blake2b(json.dumps([name, value]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2

def number(value):
    return math.nan if value is None else float(value)

def pixels(instance):
    from PIL import Image
    picture = Image.open(io.BytesIO(base64.b64decode(instance["b64"]))).convert("RGB")
    return np.array(picture.resize((given["size"], given["size"]), Image.Resampling.BILINEAR)).transpose(2, 0, 1)

if given["kind"] == "vector":
    batch = {"numbers": np.array(instances, dtype=np.float64)}
elif given["kind"] == "image":
    batch = {"pixels": np.stack([pixels(instance) for instance in instances])}
else:
    numbers = [name for name, kind in given["fields"].items() if kind != "string"]
    strings = [name for name, kind in given["fields"].items() if kind == "string"]
    batch = {
        "numbers": np.array([[number(each.get(name)) for name in numbers] for each in instances], dtype=np.float64),
        "strings": np.array([[code(name, each.get(name)) for name in strings] for each in instances], dtype=np.int64),
    }
assert {name: [str(array.dtype), list(array.shape[1:])] for name, array in batch.items()} == {
    name: [tensor["type"], tensor["shape"][1:]] for name, tensor in about["inputs"].items()
}
if file.suffix == ".pt2":
    import torch
    found = torch.export.load(file).module()({name: torch.from_numpy(array) for name, array in batch.items()})
    found = {name: tensor.detach().numpy() for name, tensor in found.items()}
else:
    import onnxruntime
    onnxruntime.set_default_logger_severity(3)
    names = list(about["outputs"])
    found = dict(zip(names, onnxruntime.InferenceSession(file).run(names, batch)))
assert not {"models", "service"} & sys.modules.keys()
print(json.dumps({"labels": about["labels"], **{name: array.tolist() for name, array in found.items()}}))
"""


def records(count: int) -> Items:
    rng = np.random.default_rng(3)
    cities = ["Bern", "Kraków", "Lima", "Oslo"]
    rows = [
        {"age": float(rng.integers(90)), "city": cities[rng.integers(4)], "member": bool(rng.integers(2))} for _ in range(count)
    ]
    rows[-1] = {"age": None, "member": True}
    return [(row, "old" if (row["age"] or 0) > 50 else "young") for row in rows]


def pictures(count: int) -> Items:
    rng = np.random.default_rng(0)
    looks = [LOOKS[index] for index in rng.integers(5, size=count)]
    return [(encoded(draw(look, rng, 48)), look.name) for look in looks]


class Exported:
    """A service that has learned, stopped; what it answered, and its folder."""

    def __init__(self, folder: Path, config: str, items: Items) -> None:
        self.instances = [instance for instance, _ in items[-12:]]
        with RunningService(folder, config) as service:
            with service.client() as client:
                learn(client, items[:30])
                self.version = learn(client, items[30:])["model_version"]
                answer = client.post("/predict", json={"instances": self.instances}).json()
            service.stop()
        assert answer["model_version"] == self.version
        self.answers = answer["predictions"]
        self.folder, self.data = folder, service.data

    def export(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return everlearn("export", "--data", str(self.data), *flags)

    def load(self, file: Path) -> dict[str, Any]:
        """Load the file in a process of its own and return what it says of the same instances."""
        command = [sys.executable, "-c", LOAD, str(file)]
        done = subprocess.run(
            command, input=json.dumps(self.instances), capture_output=True, text=True, check=False, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def vector(tmp_path_factory: pytest.TempPathFactory, digits: Items) -> Exported:
    return Exported(tmp_path_factory.mktemp("vector"), DIGITS, digits[:80])


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    config = render("record", {**RECORD, "head": {"name": "classification"}})
    return Exported(tmp_path_factory.mktemp("record"), config, records(80))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    head = {"name": "classification", "experts": ["linear", "prototype"]}
    config = render("zeroshot", {"input": {"kind": "image", "size": 32}, "head": head})
    return Exported(tmp_path_factory.mktemp("image"), config, pictures(60))


@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize("kind", ["vector", "record", "image"])
def test_an_exported_program_says_what_the_service_says(request: pytest.FixtureRequest, kind: str, format: str) -> None:
    service: Exported = request.getfixturevalue(kind)
    output = service.folder / format
    done = service.export("--output", str(output), "--format", format)
    assert done.returncode == 0, done.stderr
    (file,) = (path for path in output.iterdir() if path.suffix != ".json")
    assert done.stderr == f"everlearn: wrote {file} and model.json\n"
    found = service.load(file)
    for scores, answer in zip(found["scores"], service.answers, strict=True):
        assert dict(zip(found["labels"], scores, strict=True)) == pytest.approx(answer["scores"], abs=1e-5)


def test_exported_weights_are_those_that_are_served_and_described(vector: Exported) -> None:
    file = vector.folder / "weights" / "digits.safetensors"
    assert vector.export("--output", str(file)).returncode == 0
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["version"] == vector.version
    assert about["model"]["input"] == {"kind": "vector", "length": 64}
    assert sorted(about["labels"]) == list("0123456789")
    assert about["metrics"]["items"] == 80
    model = build_model(about["model"])
    model.load_state_dict(load_file(file))
    outputs = model(model.collate(vector.instances))
    for answer, expected in zip(model.head.answers(outputs, None), vector.answers, strict=True):
        assert answer["scores"] == pytest.approx(expected["scores"], abs=1e-6)


def test_an_earlier_version_is_exported_by_its_number(vector: Exported) -> None:
    output = vector.folder / "earlier"
    assert vector.export("--output", str(output), "--version", "1").returncode == 0
    about = json.loads((output / "model.json").read_text())
    assert (about["version"], about["metrics"]["items"]) == (1, 30)
    missing = vector.export("--output", str(vector.folder / "missing"), "--version", "99")
    assert (missing.returncode, missing.stderr) == (
        EXIT_CONFIG,
        f"everlearn: there is no version 99: the newest is {vector.version}\n",
    )


def test_nothing_is_overwritten(vector: Exported) -> None:
    output = vector.folder / "once"
    output.mkdir()
    (output / "model.json").write_text("precious")
    done = vector.export("--output", str(output))
    assert (done.returncode, done.stderr) == (EXIT_CONFIG, f"everlearn: {output}/model.json is there already\n")
    assert [path.name for path in output.iterdir()] == ["model.json"]


def test_a_model_that_can_not_be_a_program_says_why_in_one_line(tmp_path: Path) -> None:
    service = Exported(tmp_path, render("text"), [("not bad", "good"), ("no", "bad")] * 20)
    done = service.export("--output", str(tmp_path / "program"), "--format", "torch")
    assert done.returncode == EXIT_CONFIG
    assert done.stderr == "everlearn: instances of the kind text have no fixed size\n"
    assert not (tmp_path / "program").exists()
    assert service.export("--output", str(tmp_path / "weights")).returncode == 0
