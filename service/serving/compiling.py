"""The encoder compiled by torch.compile, before the first version is served and never after that.

The head is not: it grows with each class, and each growth would be compiled while predictions wait.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count, takewhile
from tempfile import TemporaryDirectory
from typing import Any

import torch

from models.base import OnlineModel
from models.encoders.raw import Raw
from models.errors import SpecificationError
from models.exporting import first_line
from models.inputs import Batch, prepared_example
from service.serving.layout import laid_out

log = logging.getLogger(__name__)

SETTING = "serving.compile"
FOLDER, HEADERS = "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"


def compile_encoder(model: OnlineModel, cast: AbstractContextManager[Any], largest: int) -> None:
    """Have the model's encoder run compiled, on batches of up to `largest` instances, whatever tensors it is given later.

    What is computed for it is looked up by the shapes, types and strides of tensors, so that a version's take the place of
    another's. From here on nothing is compiled in this process: what was not foreseen runs as it would without this.

    Raises SpecificationError with the reason in one line.
    """
    encoder = model.encoder
    if isinstance(encoder, Raw):
        raise SpecificationError(SETTING, "the model has no encoder of its own: its head does the work, and grows")
    began = time.perf_counter()
    encoder.load_state_dict({name: laid_out(tensor) for name, tensor in encoder.state_dict().items()}, assign=True)
    try:
        with _compiler_files(), torch.compiler.set_stance("default"), torch.inference_mode(), cast:
            encoder.compile(fullgraph=True)
            for batch in _batches(model, largest):
                encoder(batch)
    except Exception as exc:  # what an encoder does may be anything, and so may a compiler
        raise SpecificationError(SETTING, f"the encoder {type(encoder).__name__} can't be compiled: {first_line(exc)}") from exc
    torch.compiler.set_stance("eager_on_recompile")
    log.info("engine.compiled", extra={"seconds": round(time.perf_counter() - began, 1)})


def _batches(model: OnlineModel, largest: int) -> Iterator[Batch]:
    """Yield the batches to compile for: one instance, several, and each power of two in case what is best changes there.

    The first dimension is free, unless it is one, which torch takes for fixed. The second is where an encoder lets it be: it
    may be the length of a text. Two free ones that happen to be equal would be taken for one, so none has the other's size.
    """
    instance = prepared_example(model.input)
    lengths = {size for tensor in model.collate([instance]).values() for size in tensor.shape[1:]}
    several = next(size for size in count(2) if size not in lengths)
    powers = takewhile(lambda size: size <= largest, (2**exponent for exponent in count(2)))
    for size in (1, several, *(size for size in powers if size not in lengths)):
        batch = model.collate([instance] * size)
        for tensor in batch.values():
            if size > 1:
                torch._dynamo.mark_dynamic(tensor, 0)
            if tensor.dim() > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, 1)
        yield batch


@contextmanager
def _compiler_files() -> Iterator[None]:
    """Give the compiler a folder of its own, for it runs and unpickles what it finds there: in /tmp others could put it.

    Who names a folder for it answers for what is in it, and starts faster the next time. Headers it would keep in /tmp always.
    """
    os.environ.setdefault(HEADERS, "0")
    if FOLDER in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="everlearn-compiler-") as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]
