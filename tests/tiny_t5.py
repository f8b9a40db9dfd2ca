"""A T5 of some thousand parameters with tokens of its own, as Hugging Face saves models."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from service.demo.dates import dates

TOKENS = 400


def save_tiny_t5(directory: Path) -> Path:
    """Save a T5 with random weights, and subword tokens that are trained on dates."""
    tokenizer = _tokenizer([text for pair in islice(dates(np.random.default_rng(5)), 500) for text in pair])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    fast.save_pretrained(directory)
    size = {"vocab_size": tokenizer.get_vocab_size(), "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = T5ForConditionalGeneration(T5Config(**size, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0))
    network.save_pretrained(directory)
    return directory


def _tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, special_tokens=["<pad>", "</s>"], initial_alphabet=bytes_.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer
