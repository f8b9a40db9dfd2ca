from __future__ import annotations

import numpy as np
import pytest
import torch

from service.learning.drift import DETECTORS, MOST_LOSSES, DriftDetector, DriftResponse
from service.settings import LearningSettings


def losses(count: int, rate: float, seed: int = 0) -> list[float]:
    return (np.random.default_rng(seed).random(count) < rate).astype(float).tolist()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_shift_is_found_and_steady_losses_are_not_one(name: str) -> None:
    detector = DriftDetector(name)
    assert not detector.update(losses(1000, 0.1))
    assert detector.update(losses(500, 0.6))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_goes_on_from_its_saved_losses(name: str) -> None:
    whole, first, second = (DriftDetector(name) for _ in range(3))
    whole.update(losses(700, 0.1))
    first.update(losses(700, 0.1))
    second.load(first.tensors())
    later = losses(400, 0.4, seed=1)
    found = [[detector.update([loss]) for loss in later] for detector in (whole, second)]
    assert found[0] == found[1]
    assert any(found[0])


def test_the_state_is_bounded() -> None:
    detector = DriftDetector("adwin")
    for seed in range(20):
        detector.update(losses(1000, 0.3, seed))
    assert len(detector.tensors()["losses"]) <= MOST_LOSSES


def watch(response: DriftResponse, values: list[float], *, grew: bool = False) -> bool:
    return response.watch(torch.tensor(values), last_seq=77, update=9, grew=grew)


def test_drift_is_told_with_its_place_and_items_are_counted_from_it() -> None:
    response = DriftResponse(LearningSettings())
    assert not watch(response, losses(1000, 0.1))
    assert response.describe() == {"events": 0}
    assert response.items == 1000
    assert watch(response, losses(300, 0.7))
    assert response.describe() == {"events": 1, "seq": 77}
    assert response.items == 0
    watch(response, losses(100, 0.7, seed=2))
    assert response.items == 100


def test_a_new_class_is_not_drift() -> None:
    response = DriftResponse(LearningSettings())
    watch(response, losses(1000, 0.1))
    assert not watch(response, losses(300, 0.7), grew=True)


def test_it_can_be_switched_off() -> None:
    response = DriftResponse(LearningSettings(drift="none"))
    watch(response, losses(2000, 0.0))
    assert not watch(response, losses(2000, 1.0))
