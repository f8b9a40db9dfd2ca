"""Text encoders: hashed n-grams, which need nothing, and pretrained sentence encoders."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from models.base import Encoder
from models.errors import SpecificationError
from models.experts.base import Embed
from models.inputs import Batch, InputKind, Text, texts_of
from models.words import bucket_of, pieces_of, words_of

LENGTH = 40.0  # of a text's features: a step of the optimizer then moves its scores as much as those of tabular features

Grams = tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]


@lru_cache(maxsize=1024)
def grams_of(text: str, buckets: int) -> Grams:
    """Return the buckets of a text's words, pairs of words and pieces of words, and their damped counts (log(1 + n))."""
    words = words_of(text)
    grams = (*words, *map(" ".join, pairwise(words)), *pieces_of(words))
    places, counts = np.unique([bucket_of(gram, buckets) for gram in grams], return_counts=True)
    return places.astype(np.int64), np.log1p(counts).astype(np.float32)


class HashedText(Encoder):
    """Hashed n-grams of words and characters (Weinberger et al. 2009; Joulin et al. 2017): any language, no download.

    Without `embedding` the features are the bag itself, of one length for all texts: what linear models and counts work on.
    With it, they are the mean of learned vectors, one a bucket: few enough for networks.
    """

    def __init__(
        self,
        input: InputKind,
        *,
        buckets: Annotated[PositiveInt, Field(description="Hash buckets of the n-grams.")] = 16384,
        embedding: Annotated[
            NonNegativeInt, Field(description="Width of a learned vector per bucket; 0 gives the bag of n-grams itself.")
        ] = 0,
    ) -> None:
        super().__init__()
        if not isinstance(input, Text):
            raise SpecificationError("model.encoder.name", f"text takes text inputs, not {input.kind}")
        self.buckets = buckets
        self.table = nn.EmbeddingBag(buckets, embedding, mode="sum") if embedding else None
        self.width = embedding or buckets

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width]."""
        grams = [grams_of(text, self.buckets) for text in texts_of(batch)]
        device = batch["text"].device
        places = torch.from_numpy(np.concatenate([each for each, _ in grams])).to(device)
        counts = torch.from_numpy(np.concatenate([each for _, each in grams])).to(device)
        sizes = torch.tensor([len(each) for each, _ in grams], device=device)
        if self.table is not None:
            starts = sizes.cumsum(0) - sizes
            return LENGTH * F.normalize(self.table(places, starts, per_sample_weights=counts))
        bags = torch.zeros(len(grams), self.buckets, device=device)
        rows = torch.repeat_interleave(torch.arange(len(grams), device=device), sizes)
        bags[rows, places] = counts
        return LENGTH * F.normalize(bags)


class SentenceEncoder(Encoder):
    """A sentence-transformers model, frozen: texts -> sentence vectors of length 1 where the model makes them so."""

    def __init__(
        self,
        input: InputKind,
        *,
        model: Annotated[str, Field(description="A sentence-transformers model: a local directory or a name on the hub.")],
    ) -> None:
        super().__init__()
        if not isinstance(input, Text):
            raise SpecificationError("model.encoder.name", f"sentence takes text inputs, not {input.kind}")
        self.sentence = sentence_model("model.encoder.model", model).requires_grad_(False)
        self.width = self.sentence.get_embedding_dimension()

    @property
    def frozen(self) -> bool:
        """Whether the whole encoder keeps its initial tensors: it does."""
        return True

    def train_on(self, size: int) -> None:
        """Stay as it is: there is nothing to train."""

    def forward(self, batch: Batch) -> Tensor:
        """Return features [batch, width]."""
        return embed(self.sentence, texts_of(batch))


def sentence_model(field: str, name: str) -> Any:
    """Load a sentence-transformers model, in evaluation mode. Raises SpecificationError."""
    try:
        library = importlib.import_module("sentence_transformers")
        importlib.import_module("transformers").utils.logging.disable_progress_bar()
    except ImportError as exc:
        raise SpecificationError(field, "sentence-transformers is not installed: pip install 'everlearn[text]'") from exc
    try:
        return library.SentenceTransformer(name, device="cpu").eval()
    except (OSError, ValueError, KeyError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise SpecificationError(field, f"{name!r} can't be loaded as a sentence-transformers model: {reason}") from exc


def sentence_embedding(field: str, name: str) -> tuple[int, Embed]:
    """Return the width of a sentence-transformers model's vectors, and what makes them. Raises SpecificationError."""
    model = sentence_model(field, name)
    return model.get_embedding_dimension(), partial(embed, model)


def embed(model: Any, texts: Sequence[str]) -> Tensor:
    """Return the vectors of texts, [texts, width], on the model's device."""
    tokens = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in model.tokenize(list(texts)).items()
    }
    vectors: Tensor = model(tokens)["sentence_embedding"]
    return vectors.float()  # whatever the weights were stored in
