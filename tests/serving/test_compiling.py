"""`serving.compile`: the same answers, nothing compiled while it serves, and no start where it can't be."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from models.errors import SpecificationError
from models.inputs import prepared_example
from models.registry import build_model
from service.processes import EXIT_CONFIG
from service.serving.engine import Answers, Engine, Precision, Question
from service.serving.layout import laid_out
from tests.contract.test_checkpoint_store import version
from tests.running import DIGITS, RunningService, everlearn, learn, wait_for

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="skipped: needs a C++ compiler (Debian: apt-get install g++)"
)

COMPILED = "[serving]\ncompile = true\n"
TEXTS = '[model.input]\nkind = "text"\n[model.encoder]\nname = "text"\n[model.head]\nname = "classification"\n'
PICTURES = '[model]\nclass = "tests.serving.telling:Telling"\n'

RAW = {"input": {"kind": "interaction"}, "encoder": {"name": "raw"}, "head": {"name": "clicks"}}

START_SECONDS = 300  # that the compiler may take on a busy machine


@pytest.fixture(scope="module")
def compiler_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiler")


@pytest.fixture
def compiling(compiler_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process compile, one test as if there were no other."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiler_folder))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def vectors(classes: str) -> dict[str, Any]:
    head = {"name": "classification", "experts": ["linear"], "classes": [*classes]}
    return {"input": {"kind": "vector", "length": 3}, "encoder": {"name": "tabular", "hidden": [4]}, "head": head}


def sequences(classes: str) -> dict[str, Any]:
    return {"class": "tests.serving.telling:Bags", "classes": [*classes]}


def some_vectors(size: int) -> list[Any]:
    return list(np.random.default_rng(size).normal(size=(size, 3)))


def some_sequences(size: int) -> list[Any]:
    """Return sequences of two events and more; the longest has as many as there are sequences, and one."""
    generator = np.random.default_rng(size)
    return [[int(code) for code in generator.integers(0, 1000, 2 + each)] for each in range(size)]


def learned(specification: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Return a version's tensors as the follower has them."""
    model = build_model(specification)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return {name: laid_out(tensor) for name, tensor in load(save(model.state_dict())).items()}


def scores(engine: Engine, question: Question) -> list[dict[str, float]]:
    (answers,) = engine.submit([question]).result(60)
    assert isinstance(answers, Answers)
    return [answer["scores"] for answer in answers.answers]


@needs_compiler
@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
@pytest.mark.parametrize(("kind", "some"), [(vectors, some_vectors), (sequences, some_sequences)])
def test_nothing_is_compiled_for_a_size_a_version_or_a_class(
    kind: Callable[[str], dict[str, Any]], some: Callable[[int], list[Any]], precision: Precision, tolerance: float
) -> None:
    plain, compiled = (Engine(build_model(kind("ab")), precision=precision) for _ in range(2))
    compiled.compile(16)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch.compiler.set_stance("fail_on_recompile")  # instead of running uncompiled
    for number in range(5):
        tensors = learned(kind("abcdefg"[: 2 + number]), number)
        for engine in (plain, compiled):
            engine.swap(version(number, {"frozen": "", "model": "", "learner": ""}), dict(tensors)).result(10)
        for size in (*range(1, 10), 40):
            question = Question(some(size), top_k=9)
            expected, found = scores(plain, question), scores(compiled, question)
            assert len(found[0]) == 2 + number
            assert size < 5 or any(each != found[0] for each in found)
            assert found == [pytest.approx(each, abs=tolerance) for each in expected]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert graphs <= 3
    for engine in (plain, compiled):
        engine.close()


@needs_compiler
@pytest.mark.usefixtures("compiling")
def test_what_was_not_foreseen_runs_uncompiled() -> None:
    model = build_model(vectors("ab"))
    Engine(model).compile(4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():  # and not in inference mode, which it was compiled for
        features = model.encoder(model.collate([prepared_example(model.input)] * 3))
    assert features.shape == (3, 4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_a_model_without_an_encoder_of_its_own_is_refused() -> None:
    with pytest.raises(SpecificationError, match=r"^serving\.compile: the model has no encoder of its own"):
        Engine(build_model(RAW)).compile(4)


@pytest.mark.parametrize(
    ("config", "environment", "says"),
    [
        pytest.param(TEXTS, {}, "the encoder HashedText can't be compiled", marks=needs_compiler, id="no way to trace it"),
        pytest.param(DIGITS, {"CXX": "/nowhere/c++"}, "the encoder Tabular can't be compiled", id="no compiler"),
    ],
)
def test_a_service_that_can_not_compile_does_not_start(
    tmp_path: Path, config: str, environment: dict[str, str], says: str
) -> None:
    (tmp_path / "everlearn.toml").write_text(config + COMPILED)
    done = everlearn("serve", "--port", "0", cwd=tmp_path, TMPDIR=str(tmp_path), **environment)
    assert done.returncode == EXIT_CONFIG, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if "serving.compile" in line)
    assert says in said
    assert not [*tmp_path.glob("everlearn-compiler-*"), *tmp_path.glob("torchinductor_*")]


def test_a_service_that_does_not_compile_imports_no_compiler(tmp_path: Path) -> None:
    with RunningService(tmp_path, DIGITS, warm=False, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as service:
        with service.client() as client:
            learn(client, [([0.0] * 64, "a"), ([1.0] * 64, "b")])
            assert client.post("/predict", json={"instances": [[0.0] * 64]}).status_code == 200
        imported = service.log()
    for role in ("service.learner", "service.serving.engine"):  # in two processes
        assert role in imported
    assert "torch._dynamo" not in imported
    assert "torch._inductor" not in imported


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, RunningService]]:
    """Run two services on one data directory: one compiles, the other doesn't."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "plain").mkdir()
    compiled = RunningService(folder, PICTURES + COMPILED, "--standby", warm=False, environment={"TMPDIR": str(folder)})
    plain = RunningService(folder / "plain", PICTURES, "--standby", "--data", str(compiled.data), warm=False)
    with ExitStack() as stack:
        compiled.launch()
        stack.push(compiled)
        compiled.url = wait_for(compiled.ready_url, "the compiled one to be ready", START_SECONDS)
        stack.enter_context(plain)
        yield compiled, plain


def picture(number: int) -> dict[str, str]:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"b64": base64.b64encode(buffer.getvalue()).decode()}


def check_equal(one: httpx.Client, other: httpx.Client, served: int) -> None:
    """Compare what two services answer to one to nine pictures, once both serve a version."""
    for client in (one, other):
        wait_for(lambda client=client: client.get("/model").json()["model_version"] >= served, f"version {served}")
    for size in range(1, 10):
        question = {"instances": [picture(100 * size + each) for each in range(size)], "top_k": 9}
        expected, found = (client.post("/predict", json=question).raise_for_status().json() for client in (one, other))
        assert found["model_version"] == expected["model_version"] == served
        for left, right in zip(expected["predictions"], found["predictions"], strict=True):
            assert right["scores"] == pytest.approx(left["scores"], abs=1e-5)


def ran_uncompiled(service: RunningService) -> set[str]:
    """Return the processes that said so."""
    return set(re.findall(r"(\w+)\[\d+\] it runs uncompiled", service.log()))


@needs_compiler
def test_over_http_it_answers_as_without_and_no_version_runs_uncompiled(pair: tuple[RunningService, RunningService]) -> None:
    compiled, plain = pair
    with compiled.client() as client, plain.client() as other:
        for number in range(5):
            labelled = [(picture(10 * number + each), "ab"[each % 2]) for each in range(4)]
            check_equal(other, client, learn(client, labelled)["model_version"])
        client.post("/classes", json={"name": "zebra"}).raise_for_status()
        served = learn(client, [(picture(77), "zebra")])["model_version"]
        check_equal(other, client, served)
        (answer,) = client.post("/predict", json={"instances": [picture(77)], "top_k": 9}).json()["predictions"]
        assert set(answer["scores"]) == {"a", "b", "zebra"}
    assert ran_uncompiled(compiled) <= {"learner"}
    assert "api" in ran_uncompiled(plain)
    assert "learner" in ran_uncompiled(compiled) | ran_uncompiled(plain)


@needs_compiler
def test_the_compilers_files_are_gone_once_it_serves(pair: tuple[RunningService, RunningService]) -> None:
    compiled, _ = pair
    assert not [*compiled.folder.glob("everlearn-compiler-*"), *compiled.folder.glob("torchinductor_*")]
