from __future__ import annotations

import torch

from models.vocabulary import Vocabulary


def test_strings_get_columns_in_the_order_in_which_they_appear_until_there_are_no_more() -> None:
    vocabulary = Vocabulary(1, size=2)
    vocabulary.observe(torch.tensor([[7], [-1], [5], [7], [9]]))
    assert vocabulary(torch.tensor([[7], [5], [9], [-1]])).tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]


def test_each_field_has_its_own_strings() -> None:
    vocabulary = Vocabulary(2, size=1)
    vocabulary.observe(torch.tensor([[1, 2]]))
    assert vocabulary(torch.tensor([[1, 2], [2, 1]])).tolist() == [[1, 1], [0, 0]]
