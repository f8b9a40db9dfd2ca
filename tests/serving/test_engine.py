from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from models.registry import build_model
from service.serving.engine import Answers, Engine, Question
from tests.contract.test_checkpoint_store import version
from tests.serving.blocking import SPEC, Gate, gated_model


def tensors(seed: int) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in build_model(SPEC, seed=seed).state_dict().items()}


def answered(engine: Engine, *numbers: float) -> Answers:
    (answers,) = engine.submit([Question([[number, 1.0] for number in numbers])]).result(10)
    assert isinstance(answers, Answers)
    return answers


def test_answers_name_the_version_that_gave_them() -> None:
    engine = Engine(build_model(SPEC))
    for number in (1, 2, 5):
        engine.swap(version(number, {"frozen": "", "model": "", "learner": ""}), tensors(number)).result(10)
        assert answered(engine, 1.0).version == number
    engine.close()


def test_a_swap_waits_for_the_batch_before_it_and_holds_for_the_one_after_it_is_done() -> None:
    engine = Engine(build_model(SPEC))
    row = version(1, {"frozen": "", "model": "", "learner": ""})
    futures = []
    for number in range(1, 40):
        futures.append(engine.submit([Question([[1.0, 1.0]])]))
        engine.swap(row.__class__(**{**_fields(row), "version": number}), tensors(number % 3)).result(10)
    versions = [future.result(10)[0].version for future in futures]  # type: ignore[union-attr]
    assert versions == [-1, *range(1, 39)]
    engine.close()


def test_a_retired_snapshot_is_freed() -> None:
    engine = Engine(build_model(SPEC))
    first = tensors(1)
    references = [weakref.ref(tensor) for tensor in first.values()]
    row = version(1, {"frozen": "", "model": "", "learner": ""})
    engine.swap(row, first).result(10)
    del first
    engine.swap(row, tensors(2)).result(10)
    answered(engine, 1.0)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    engine.close()


def test_a_quick_batch_is_computed_at_once_and_a_slow_one_in_the_engines_thread() -> None:
    gate = Gate()
    gate.opened.set()
    engine = Engine(gated_model(gate))
    small, large = [Question([[1.0, 1.0]])], [Question([[1.0, 1.0]] * 500_000)]
    for _ in range(100):  # until one was quick: others may keep the processor busy
        engine.submit(small).result(10)
        if engine.answer(small) is not None:
            break
    assert threading.get_ident() == gate.threads[-1]
    for _ in range(2):
        assert engine.answer(large) is None
        engine.submit(large).result(60)
    assert threading.get_ident() != gate.threads[-1]
    engine.close()


def test_in_half_the_precision_an_answer_is_about_the_same() -> None:
    model = build_model(SPEC, seed=0)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    engines = [Engine(model), Engine(model, precision="bfloat16")]
    whole, half = (answered(engine, 0.5, 2.0).answers for engine in engines)
    assert whole != half
    for one, other in zip(whole, half, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=0.02)
    for engine in engines:
        engine.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_answers_about_as_a_cpu_does() -> None:
    engines = [Engine(build_model(SPEC, seed=0)), Engine(build_model(SPEC, seed=0).to("cuda"))]
    for engine in engines:
        engine.swap(version(1, {"frozen": "", "model": "", "learner": ""}), _on(engine.device, tensors(1))).result(10)
    one, other = (answered(engine, 0.5, 2.0).answers for engine in engines)
    for on_cpu, on_gpu in zip(one, other, strict=True):
        assert on_cpu["scores"] == pytest.approx(on_gpu["scores"], abs=1e-4)
    for engine in engines:
        engine.close()


def _on(device: torch.device, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _fields(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}  # type: ignore[attr-defined]
