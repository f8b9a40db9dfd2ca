from __future__ import annotations

import pytest
import torch

from service.learning.arithmetic import SUBNORMAL, subnormals_as_zero


def flushes() -> bool:
    return bool((torch.tensor([1e-39]) * 1.0 == 0).item()) and SUBNORMAL * 1.0 == 0.0


def test_subnormals_are_zero_inside_and_numbers_again_outside() -> None:
    with subnormals_as_zero():
        assert flushes()
    assert not flushes()


def test_a_failure_inside_leaves_subnormals_as_they_were() -> None:
    with pytest.raises(RuntimeError), subnormals_as_zero():
        raise RuntimeError
    assert not flushes()


def test_who_flushes_already_goes_on_doing_so() -> None:
    with subnormals_as_zero():
        with subnormals_as_zero():
            pass
        assert flushes()
    assert not flushes()
