"""Zero-shot classification: s(x, y) = x^T W y, with a class vector y made from the class's description."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.errors import LabelError
from models.experts.base import Embed, Expert, resized, resized_parameter
from models.words import bucket_of, words_of

WORD_WIDTH = 64
WORD_BUCKETS = 4096
MOST_WORDS = 128  # in all descriptions of a class together
SHARPNESS = 20.0  # of the first W where instances and descriptions lie in one space: cosines are small numbers
LOST = 0.05  # share of the items of classes with labels that the margin may cost
MARGIN_RATE = 0.05  # of the margin's steps


class ClassTexts(nn.Module):
    """The descriptions of the classes, in the form that class vectors are made from."""

    width: int

    def check(self, texts: Sequence[str]) -> None:
        """Raise LabelError for descriptions that `describe` could not take."""

    def describe(self, index: int, texts: Sequence[str], embed: Embed) -> None:
        """Take the descriptions of a class in the place of those that it had; `embed` is the model's own text encoder."""
        raise NotImplementedError

    def of(self, classes: slice | Tensor) -> Tensor:
        """Return the vectors of some classes, by their indices."""
        vectors: Tensor = self()
        return vectors[classes]

    def resize(self, classes: int) -> None:
        """Have this many classes."""
        raise NotImplementedError


class Words(ClassTexts):
    """Means of learned word vectors: classes share what their descriptions share."""

    places: Tensor
    shares: Tensor

    def __init__(self, width: int = WORD_WIDTH, most: int = MOST_WORDS) -> None:
        super().__init__()
        self.width = width
        self.most = most
        self.table = nn.Embedding(WORD_BUCKETS, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.register_buffer("places", torch.zeros(0, most, dtype=torch.int64))  # [classes, words], hash buckets
        self.register_buffer("shares", torch.zeros(0, most))  # [classes, words], adding up to 1; 0 is no word

    def forward(self) -> Tensor:
        """Return a vector for each class, [classes, width]; zeros for one without a description."""
        return self.of(slice(None))

    def of(self, classes: slice | Tensor) -> Tensor:
        """Return the vectors of some classes, by their indices."""
        places, shares = self.places[classes], self.shares[classes]
        longest = max(1, int(shares.count_nonzero(1).max())) if len(shares) else 1
        places, shares = places[:, :longest].contiguous(), shares[:, :longest].contiguous()
        return F.embedding_bag(places, self.table.weight, per_sample_weights=shares, mode="sum")

    def check(self, texts: Sequence[str]) -> None:
        """Raise LabelError for descriptions that are too long, or have no word."""
        cut = [words_of(text) for text in texts]
        if not all(cut):
            raise LabelError("a description has no word")
        if (count := sum(map(len, cut))) > self.most:
            raise LabelError(f"the descriptions have {count} words, the limit is {self.most}")

    def describe(self, index: int, texts: Sequence[str], embed: Embed) -> None:
        """Take the words of the descriptions; each description counts as much as the others."""
        cut = [words_of(text) for text in texts]
        places = [bucket_of(word, WORD_BUCKETS) for words in cut for word in words]
        shares = [1 / (len(words) * len(cut)) for words in cut for _ in words]
        self.places[index], self.shares[index] = 0, 0.0
        self.places[index, : len(places)] = torch.tensor(places, dtype=torch.int64, device=self.places.device)
        self.shares[index, : len(shares)] = torch.tensor(shares, device=self.shares.device)

    def resize(self, classes: int) -> None:
        """Have this many classes."""
        self.places, self.shares = resized(self.places, classes), resized(self.shares, classes)


class Vectors(ClassTexts):
    """Vectors of a text encoder, which stay as they are: the model's own, or one that is given."""

    vectors: Tensor

    def __init__(self, width: int, embed: Embed | None = None) -> None:
        super().__init__()
        self.width = width
        self._embed = embed
        self.register_buffer("vectors", torch.zeros(0, width))

    def forward(self) -> Tensor:
        """Return a vector for each class, [classes, width]; zeros for one without a description."""
        return self.vectors

    def describe(self, index: int, texts: Sequence[str], embed: Embed) -> None:
        """Take the mean of the descriptions' vectors, each of length 1."""
        embed = self._embed or embed
        mean = F.normalize(embed(texts)).mean(0) if texts else self.vectors.new_zeros(self.width)
        self.vectors[index] = F.normalize(mean, dim=0)

    def resize(self, classes: int) -> None:
        """Have this many classes."""
        self.vectors = resized(self.vectors, classes)


class Bilinear(Expert):
    """A compatibility of instances with descriptions (Frome et al. 2013; Akata et al. 2016): it knows what was only described.

    A class without a description has a learned vector. Where some classes have had labels and some have not, those that
    have are held back by a margin, or they would swallow the others (calibrated stacking, Chao et al. 2016). The margin is
    learned: it grows until a twentieth of the labelled items is lost to classes without labels (online quantile tracking,
    Gibbs and Candes 2021).
    """

    seen: Tensor
    described: Tensor
    margin: Tensor

    def __init__(self, width: int, outputs: int, *, texts: ClassTexts, aligned: bool) -> None:
        """Start with W = 0, or, where instances and descriptions are `aligned` in one space, with their cosine."""
        super().__init__()
        self.aligned = aligned
        self.texts = texts
        self.weight = nn.Parameter(SHARPNESS * torch.eye(texts.width) if aligned else torch.zeros(texts.width, width))
        self.vectors = nn.Parameter(torch.zeros(0, texts.width))
        self.register_buffer("seen", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("described", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("margin", torch.zeros(()))
        self.resize(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [batch, outputs]."""
        return self._compared(features) - self.margin * (self.seen & self.unseen.any())

    @property
    def unseen(self) -> Tensor:
        """Which classes were described and have had no label, bool [classes]."""
        return self.described & ~self.seen

    def observe(self, features: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Move the margin by the items of classes that had labels before, and note which classes have labels now."""
        known = self.seen[targets]
        if self.unseen.any() and known.any():
            logits = self._compared(features[known])
            best = [logits.masked_fill(~some, -torch.inf).amax(1) for some in (self.seen, self.unseen)]
            lost = (best[1] > best[0] - self.margin).to(logits.dtype)
            self.margin += MARGIN_RATE * (LOST - lost).sum()
            self.margin.clamp_(min=0)
        self.seen[targets] = True

    def describe(self, index: int, texts: Sequence[str], embed: Embed) -> None:
        """Take the descriptions of a class; none brings its learned vector back."""
        self.texts.describe(index, texts, embed)
        self.described[index] = bool(texts)

    def _compared(self, features: Tensor) -> Tensor:
        classes = torch.where(self.described.unsqueeze(1), self.texts(), self.vectors)
        compared = F.normalize(features) if self.aligned else features
        return F.linear(F.linear(compared, self.weight), classes)

    def knows(self, last_seen: Tensor, observed: Tensor) -> Tensor:
        """Return which classes it can speak of: those that were described or have had labels, bool [classes]."""
        return self.described | self.seen

    def resize(self, outputs: int) -> None:
        """Have this many outputs; learned vectors start at random, since zeros would have no gradient."""
        kept = min(outputs, len(self.vectors))
        self.vectors = resized_parameter(self.vectors, outputs)
        nn.init.normal_(self.vectors.data[kept:], std=self.texts.width**-0.5)
        self.seen, self.described = resized(self.seen, outputs), resized(self.described, outputs)
        self.texts.resize(outputs)
