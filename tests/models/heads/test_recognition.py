from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.heads.recognition import Recognition

WIDTH = 32


def people(count: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)))


def photos(who: torch.Tensor, seed: int, noise: float = 0.08) -> torch.Tensor:
    return who + noise * torch.randn(who.shape, generator=torch.Generator().manual_seed(seed))


def teach(head: Recognition, features: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    outputs = head(features) if head.ready else None
    scores = head.scores(outputs, names)
    head.admit(names)
    head.observe(features, outputs, names, torch.ones(len(names)))
    return scores


def test_one_instance_makes_an_identity_among_thousands() -> None:
    head, everybody = Recognition(WIDTH), people(3000)
    names = [f"p{number}" for number in range(3000)]
    teach(head, everybody, names)
    answers = head.answers(head(photos(everybody[:200], 1)), None)
    assert sum(answer["label"] == name for answer, name in zip(answers, names, strict=False)) > 180
    assert all(len(answer["scores"]) == 10 for answer in answers)


def test_a_stranger_is_nobody_and_the_promised_share_of_the_known_is_accepted() -> None:
    head, everybody = Recognition(WIDTH, unknown=0.1), people(40)
    names = [f"p{number}" for number in range(40)]
    known, accepted = [], []
    for seed in range(60):
        for start in range(0, 40, 8):
            part = slice(start, start + 8)
            scores = teach(head, photos(everybody[part], 100 * seed + start, noise=0.12), names[part])
            if seed >= 20:
                known += scores["known_accuracy"].tolist()
        accepted += [answer["label"] is not None for answer in head.answers(head(people(5, seed=1000 + seed)), 1)]
    assert sum(known) / len(known) == pytest.approx(0.9, abs=0.03)
    assert sum(accepted[100:]) / len(accepted[100:]) < 0.05


def test_whoever_comes_for_the_first_time_is_answered_right_by_null() -> None:
    head, everybody = Recognition(WIDTH), people(20)
    names = [f"p{number}" for number in range(20)]
    for seed in range(20):
        teach(head, photos(everybody, seed), names)
    scores = teach(head, people(1, seed=5), ["new"])
    assert (scores["accuracy"].item(), scores["unknown_accuracy"].item()) == (1, 1)
    assert scores["known_accuracy"].isnan().item()
    (answer,) = head.answers(head(people(1, seed=5)), 1)
    assert answer["label"] == "new"
    assert answer["similarity"] == pytest.approx(1, abs=1e-5)


def test_before_the_threshold_is_known_everybody_is_accepted() -> None:
    head = Recognition(WIDTH)
    teach(head, people(2), ["a", "b"])
    (answer,) = head.answers(head(people(1, seed=9)), 2)
    assert answer["label"] in {"a", "b"}
    assert head.describe() == {}
