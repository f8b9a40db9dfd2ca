"""A pretrained encoder-decoder from Hugging Face as a head: T5, BART, Marian, ... learn on from live labels."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from models.base import Answer, Batch, Label
from models.errors import LabelError, SpecificationError
from models.heads.writing import Writing, masked_means, ranked
from models.inputs import InputKind, Text, texts_of
from models.lora import LowRank

MODEL = "model.head.model"
NO_LABEL = -100  # Hugging Face's mark for a token that is not there


class Encoded(NamedTuple):
    """What the encoder says of a batch of texts, padded behind to the longest."""

    memory: Tensor
    """[batch, length, width]."""
    there: Tensor
    """Which tokens are there, int64 [batch, length]."""


class Seq2Seq(Writing):
    """An encoder-decoder of the transformers library, with its own tokens and its own way to write, as it was saved.

    All of it learns, or low-rank adapters alone.
    """

    takes = "tensors"

    def __init__(
        self,
        width: int,
        plain: int | None = None,
        *,
        model: Annotated[str, Field(description="A sequence-to-sequence model: a local directory or a name on the hub.")],
        weights: Annotated[
            Literal["pretrained", "none"], Field(description='"none": the architecture and the tokens alone.')
        ] = "pretrained",
        train: Annotated[
            Literal["all", "lora"], Field(description='What learns: "all", or low-rank adapters in every linear layer.')
        ] = "lora",
        rank: Annotated[PositiveInt, Field(description="Rank of the low-rank adapters.")] = 8,
        prefix: Annotated[str, Field(description='What stands before each text, as "summarize: " for T5.')] = "",
        read_tokens: Annotated[PositiveInt, Field(description="What is longer is cut off before it is read.")] = 512,
        max_tokens: Annotated[PositiveInt, Field(description="Length of an answer at most; a longer label is refused.")] = 128,
        beams: Annotated[int, Field(ge=1, le=16, description="Texts that are followed at once; 1 writes greedily.")] = 1,
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.read_tokens = read_tokens
        self.max_tokens = max_tokens
        self.beams = beams
        self.tokenizer, self.network = _pretrained(model, weights)
        self.tied = _tied(self.network)
        self._adapters = train == "lora"
        if self._adapters:
            _adapt(self.network, rank)
        self.register_state_dict_post_hook(_leave_out_tied)  # type: ignore[no-untyped-call]  # torch leaves both unannotated
        self.register_load_state_dict_pre_hook(_put_in_tied)  # type: ignore[no-untyped-call]

    def fixed(self) -> set[str]:
        """Return the names of the tensors beside the adapters; nothing is fixed without them."""
        learned = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return set(self.state_dict()) - learned if self._adapters else set()

    def check(self, input: InputKind) -> None:
        """Raise SpecificationError for instances that are no texts."""
        if not isinstance(input, Text):
            raise SpecificationError("model.input.kind", f"the head seq2seq takes texts, not {input.kind}")

    def parse_label(self, value: str) -> str:
        """Return the text. Raises LabelError for one that is too long, or has half a character."""
        size = len(self.tokenizer(text_target=super().parse_label(value))["input_ids"])
        if size > self.max_tokens:
            raise LabelError(f"the text has {size} tokens, the limit is {self.max_tokens}")
        return value

    def forward(self, features: Batch) -> Encoded:
        """Read the texts; `answers` writes."""
        texts = [self.prefix + text for text in texts_of(features)]
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.read_tokens, return_tensors="pt")
        ids, there = tokens["input_ids"].to(self.network.device), tokens["attention_mask"].to(self.network.device)
        return Encoded(self.network.get_encoder()(input_ids=ids, attention_mask=there).last_hidden_state, there)

    def log_losses(self, outputs: Encoded, labels: Sequence[Label]) -> Tensor:
        """Return the mean log loss of each label's tokens, [batch]."""
        tokens = self.tokenizer(text_target=list(labels), padding=True, return_tensors="pt").to(self.network.device)
        there = tokens["attention_mask"].bool()
        targets = tokens["input_ids"].masked_fill(~there, NO_LABEL)
        logits = self.network(**_given(outputs), labels=targets).logits
        return masked_means(_log_losses(logits, targets), there)

    def search(self, outputs: Encoded, beams: int) -> list[list[Answer]]:
        """Write for each item: the different texts that beam search finds, with their scores, best first."""
        written = self.network.generate(
            **_given(outputs),
            max_new_tokens=self.max_tokens,
            do_sample=False,
            num_beams=beams,
            num_return_sequences=beams,
        )  # [batch * beams, length], from the token that every text starts with
        wide = Encoded(*(part.repeat_interleave(beams, 0) for part in outputs))
        logits = self.network(**_given(wide), decoder_input_ids=written[:, :-1]).logits
        there = self._there(written[:, 1:])
        scores = -masked_means(_log_losses(logits, written[:, 1:]), there)
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        found = list(zip(texts, scores.tolist(), strict=True))
        return [ranked(found[start : start + beams]) for start in range(0, len(found), beams)]

    def _there(self, tokens: Tensor) -> Tensor:
        """Return which tokens are part of what was written, bool [batch, length]: all up to the first end."""
        ends = tokens == self.tokenizer.eos_token_id
        there: Tensor = ends.cumsum(1) - ends.int() == 0
        return there


def _given(encoded: Encoded) -> dict[str, Any]:
    """Return what was read as the network's arguments."""
    outputs = importlib.import_module("transformers.modeling_outputs")
    return {"encoder_outputs": outputs.BaseModelOutput(last_hidden_state=encoded.memory), "attention_mask": encoded.there}


def _log_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log loss of each token, [batch, length], for logits [batch, length, tokens]."""
    losses: Tensor = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=NO_LABEL)
    return losses


def _pretrained(name: str, weights: str) -> tuple[Any, Any]:
    """Load tokenizer and network, in evaluation mode. Raises SpecificationError."""
    try:
        library = importlib.import_module("transformers")
    except ImportError as exc:
        raise SpecificationError(MODEL, "transformers is not installed: pip install 'everlearn[text]'") from exc
    library.utils.logging.disable_progress_bar()
    kind = library.AutoModelForSeq2SeqLM
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(name)
        if weights == "none":
            network = kind.from_config(library.AutoConfig.from_pretrained(name))
        else:  # safetensors alone: nothing is unpickled
            network = kind.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise SpecificationError(MODEL, f"{name!r} can't be loaded as a sequence-to-sequence model: {reason}") from exc
    return tokenizer, network.eval()


def _adapt(network: Any, rank: int) -> None:
    """Freeze a network and put adapters beside its linear layers, but for the one that is the table of its tokens."""
    network.requires_grad_(False)
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer is not network.get_output_embeddings():
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def _tied(network: nn.Module) -> dict[str, str]:
    """Return the names of parameters that are the same as an earlier one, with the earlier one's."""
    first: dict[nn.Parameter, str] = {}
    names = [(name, first.setdefault(each, name)) for name, each in network.named_parameters(remove_duplicate=False)]
    return {name: original for name, original in names if name != original}


def _leave_out_tied(head: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Have a tensor under one name only: what is stored and averaged is the one, and the others follow it."""
    assert isinstance(head, Seq2Seq)
    for name in head.tied:
        del state[f"{prefix}network.{name}"]


def _put_in_tied(head: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    assert isinstance(head, Seq2Seq)
    for name, original in head.tied.items():
        state[f"{prefix}network.{name}"] = state[f"{prefix}network.{original}"]
