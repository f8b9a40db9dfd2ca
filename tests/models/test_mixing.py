from __future__ import annotations

import pytest
import torch

from models.metrics import calibration_error
from models.mixing import ErrorMix, LogisticMix, let_sleep


def stream(items: int, *sharpness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Experts that know the true probabilities of 3 classes, each raised to a power; and classes drawn from them."""
    generator = torch.Generator().manual_seed(0)
    truth = 2 * torch.randn(items, 3, generator=generator)
    targets = torch.multinomial(truth.softmax(1), 1, generator=generator).squeeze(1)
    return torch.stack([(power * truth).log_softmax(1) for power in sharpness], 1), targets


def test_the_expert_that_knows_gets_the_weight() -> None:
    said, targets = stream(2000, 1.0, 0.0)
    said[:, 1] = torch.randn(2000, 3, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    mix = LogisticMix(2)
    for some, true in zip(said.split(50), targets.split(50), strict=True):
        mix.observe(some, true, torch.ones(50))
    knowing, guessing = mix.weights.tolist()
    assert knowing > 0.8
    assert abs(guessing) < 0.15


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_the_weight_of_a_single_expert_is_an_online_temperature(sharpness: float) -> None:
    said, targets = stream(6000, sharpness)
    mix = LogisticMix(1)
    before = mix(said[3000:])
    mix.observe(said[:3000], targets[:3000], torch.ones(3000))
    after = mix(said[3000:])
    errors = []
    for mixed in (before, after):
        confidence, predicted = mixed.softmax(1).max(1)
        errors.append(calibration_error(confidence.numpy(), (predicted == targets[3000:]).numpy()))
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert errors[1] < errors[0] / 2


def test_experts_that_were_wrong_about_all_items_of_one_update_are_not_believed_in_the_opposite() -> None:
    """So it goes where a class has just begun, and the rest of it comes at once."""
    said = torch.tensor([[0.9, 0.1, 1e-4], [0.8, 0.2, 1e-4]]).log().expand(200, 2, 3)
    for experts in (1, 2):
        mix = LogisticMix(experts)
        mix.observe(said[:, :experts], torch.full((200,), 2), torch.ones(200))
        assert torch.equal(mix(said[:1, :experts]).argsort(descending=True), torch.tensor([[0, 1, 2]]))
        assert (mix.weights == 0.5 / experts).all()


def test_an_expert_that_goes_on_being_wrong_is_believed_in_the_opposite_after_some_updates() -> None:
    said, mix = torch.tensor([[[0.9, 0.1]]]).log().expand(20, 1, 2), LogisticMix(1)
    for _ in range(20):
        mix.observe(said, torch.ones(20, dtype=torch.int64), torch.ones(20))
    assert mix(said[:1]).argmax().item() == 1


def test_items_one_by_one_are_the_same_as_items_at_once() -> None:
    said, targets = stream(50, 1.0, 0.5)
    whole, single = LogisticMix(2), LogisticMix(2)
    whole.observe(said, targets, torch.ones(len(targets)))
    for row, target in zip(said, targets, strict=True):
        single.observe(row.unsqueeze(0), target.unsqueeze(0), torch.ones(1))
    assert torch.equal(whole.weights, single.weights)


def test_a_sleeping_expert_says_what_the_reference_says_and_keeps_its_odds_among_the_rest() -> None:
    reference = torch.tensor([[0.5, 0.3, 0.2]]).log()
    said = torch.tensor([[[0.0, 0.25, 0.75]]]).clamp(min=1e-9).log()
    awake = torch.tensor([[False, True, True]])
    assert torch.allclose(let_sleep(said, awake, reference).exp(), torch.tensor([[[0.5, 0.125, 0.375]]]))
    assert torch.equal(let_sleep(said, torch.ones(1, 3, dtype=torch.bool), reference), said)


def test_values_follow_the_expert_with_the_smaller_discounted_error() -> None:
    mix = ErrorMix(2)
    mix.observe(torch.tensor([[0.1, 1.0]] * 200, dtype=torch.float64), torch.ones(200))
    assert mix(torch.tensor([[10.0, 20.0]])).item() == pytest.approx(10, abs=0.1)
    mix.observe(torch.tensor([[1.0, 0.1]] * 400, dtype=torch.float64), torch.ones(400))
    assert mix(torch.tensor([[10.0, 20.0]])).item() == pytest.approx(20, abs=0.1)


def test_an_item_of_no_weight_moves_nothing() -> None:
    said, targets = stream(50, 1.0, 0.5)
    mix, errors = LogisticMix(2), ErrorMix(2)
    mix.observe(said, targets, torch.zeros(50))
    errors.observe(torch.ones(50, 2, dtype=torch.float64), torch.zeros(50))
    assert torch.equal(mix.weights, LogisticMix(2).weights)
    assert torch.equal(errors.weights, ErrorMix(2).weights)
