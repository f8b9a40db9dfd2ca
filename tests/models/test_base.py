from __future__ import annotations

import pytest

from models.errors import SpecificationError
from models.registry import build_model


def test_a_head_that_takes_vectors_refuses_an_encoder_that_gives_something_else() -> None:
    specification = {
        "input": {"kind": "vector", "length": 2},
        "encoder": {"name": "raw"},
        "head": {"name": "classification"},
    }
    with pytest.raises(
        SpecificationError, match=r"model\.encoder: it gives tensors, and the head classification takes vectors"
    ):
        build_model(specification)
