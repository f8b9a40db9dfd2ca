from __future__ import annotations

import torch

from service.learning.randomness import Purpose, choices_for, torch_randomness_for


def test_choices_are_keyed_by_seed_version_and_purpose() -> None:
    keys = [(seed, version, purpose) for seed in (0, 1, 2**63 - 1) for version in (0, 1) for purpose in Purpose]
    draws = {key: tuple(choices_for(*key).integers(2**62, size=4)) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert all(tuple(choices_for(*key).integers(2**62, size=4)) == draw for key, draw in draws.items())


def test_torchs_generator_is_keyed_inside_and_as_before_outside() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch_randomness_for(0, 5):
        first = torch.rand(4)
    assert torch.equal(torch.rand(2), expected)
    with torch_randomness_for(0, 5):
        assert torch.equal(torch.rand(4), first)
