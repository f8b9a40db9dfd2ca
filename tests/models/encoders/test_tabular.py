from __future__ import annotations

from typing import Any

import pytest
import torch

from models.encoders.tabular import Tabular
from models.inputs import Record, Vector

FIELDS: dict[str, Any] = {"age": "number", "city": "string", "member": "boolean"}


def record_encoder() -> tuple[Record, Tabular]:
    kind = Record(fields=FIELDS)
    torch.manual_seed(0)
    return kind, Tabular(kind, hidden=[16, 8])


def test_features_have_the_width_of_the_last_layer() -> None:
    kind, encoder = record_encoder()
    batch = kind.collate([{"age": 1.0, "city": "x", "member": True}, {}])
    assert encoder(batch).shape == (2, encoder.width) == (2, 8)


def test_predicting_changes_no_statistic() -> None:
    kind, encoder = record_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder(kind.collate([{"age": 5.0}]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_a_missing_number_differs_from_every_number_and_a_missing_string_from_every_string() -> None:
    kind, encoder = record_encoder()
    encoder.observe(kind.collate([{"age": 1.0}, {"age": 3.0}]))
    features = encoder(kind.collate([{"age": 2.0}, {}, {"age": 2.0, "city": ""}, {"age": 2.0, "city": "x"}]))
    distances = torch.cdist(features, features) + torch.eye(4)
    assert (distances > 1e-6).all()


def test_features_stay_finite_whatever_comes() -> None:
    kind = Vector(length=2)
    encoder = Tabular(kind, hidden=[4])
    for numbers in ([1e30, -1e30], [0.0, 0.0], [5e-324, 1e308]):
        encoder.observe(kind.collate([numbers]))
        assert encoder(kind.collate([numbers, [1.0, 2.0]])).isfinite().all()


def test_the_scale_of_a_column_does_not_matter_once_it_was_observed() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(200, 2, dtype=torch.float64)
    kind = Vector(length=2)
    encoders = []
    for scale in (1.0, 1000.0):
        torch.manual_seed(1)
        encoder = Tabular(kind, hidden=[4])
        encoder.observe({"numbers": scale * numbers})
        encoders.append(encoder({"numbers": scale * numbers}))
    assert torch.allclose(encoders[0], encoders[1], atol=1e-5)


def test_the_plain_features_come_first_and_say_it_all() -> None:
    kind = Record(fields=FIELDS)
    encoder = Tabular(kind, bins=4, one_hot=3)
    assert encoder.plain == 2 + 2 + 1 + 3  # z-scores, flags of the numbers, flag and one-hot of the string
    assert encoder.width == encoder.plain + 2 * 4 + 8
    encoder.observe(kind.collate([{"age": 1.0, "city": "x", "member": True}, {"age": 3.0, "city": "y"}]))
    features = encoder(kind.collate([{"age": 3.0, "city": "y"}]))
    assert features[0, : encoder.plain].tolist() == pytest.approx([0.7071, 0, 0, 1, 0, 0, 1, 0], abs=1e-3)


def test_many_numbers_get_fewer_bins_each() -> None:
    assert Tabular(Vector(length=64), bins=16).width == 64 + 64 * 4
