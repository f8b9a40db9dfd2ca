"""Configurations to start from: everlearn.toml with a comment for every setting, made from the settings themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from models.options import options_of
from models.registry import ENCODERS, HEADS, INPUTS
from service.learning.optimizers import OPTIMIZERS
from service.settings import Settings

RECORD_FIELDS = {"age": "number", "city": "string", "member": "boolean"}

# What a template says of the model's parts, and of other sections where the defaults do not suit it.
TEMPLATES: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {
        "input": {"kind": "vector", "length": 64},
        "encoder": {"name": "tabular"},
        "head": {"name": "classification", "labels": "open"},
    },
    "record": {
        "input": {"kind": "record", "fields": RECORD_FIELDS, "unknown": "refuse"},
        "encoder": {"name": "tabular"},
        "head": {"name": "classification", "labels": "open"},
    },
    "numbers": {
        "input": {"kind": "record", "fields": RECORD_FIELDS, "unknown": "refuse"},
        "encoder": {"name": "tabular"},
        "head": {"name": "regression", "coverage": 0.9},
    },
    "tags": {
        "input": {"kind": "text"},
        "encoder": {"name": "text"},
        "head": {"name": "multilabel", "experts": ["linear"]},
    },
    "text": {
        "input": {"kind": "text"},
        "encoder": {"name": "text"},
        "head": {"name": "classification", "experts": ["linear", "bayes"], "labels": "open"},
    },
    "translation": {
        "input": {"kind": "text"},
        "encoder": {"name": "reader"},
        "head": {"name": "generation", "max_bytes": 64},
        "learning": {
            "step_items": 8,
            "rehearse": 2,
            "warm_up": 4000,
            "average": 0.9,
            "optimizer": {"name": "adam", "lr": 0.002},
        },
    },
    "summary": {
        "input": {"kind": "text"},
        "encoder": {"name": "reader"},
        "head": {"name": "generation", "max_bytes": 128},
        "learning": {
            "step_items": 8,
            "rehearse": 2,
            "warm_up": 4000,
            "average": 0.9,
            "optimizer": {"name": "adam", "lr": 0.002},
        },
    },
    "seq2seq": {
        "input": {"kind": "text"},
        "encoder": {"name": "raw"},
        "head": {"name": "seq2seq", "model": "google-t5/t5-small", "train": "lora", "prefix": "summarize: "},
        "learning": {"step_items": 8, "rehearse": 2, "average": 0.9, "optimizer": {"name": "adam", "lr": 0.001}},
        "store": {"checkpoints": 10},
    },
    "behaviour": {
        "input": {"kind": "sequence", "length": 32},
        "encoder": {"name": "sequence"},
        "head": {"name": "classification", "labels": "open"},
    },
    "recommend": {
        "input": {"kind": "interaction"},
        "encoder": {"name": "raw"},
        "head": {"name": "clicks", "shrink": 1.0},
        "learning": {"warm_up": 0, "optimizer": {"name": "adam", "lr": 0.01}},
    },
    "products": {
        "input": {"kind": "interaction"},
        "encoder": {"name": "raw"},
        "head": {"name": "choices", "shrink": 0.3, "explore": 0.05},
        "learning": {"optimizer": {"name": "adam", "lr": 0.01}},
    },
    "zeroshot": {
        "input": {"kind": "image", "size": 32},
        "encoder": {"name": "convolutional"},
        "head": {"name": "classification", "experts": ["bilinear"], "descriptions": "words", "labels": "open"},
    },
    "transfer": {
        "input": {"kind": "image"},
        "encoder": {"name": "torchvision", "backbone": "resnet18", "weights": "DEFAULT", "train": "head"},
        "head": {"name": "classification", "experts": ["linear", "prototype"], "labels": "open"},
    },
    "recognition": {
        "input": {"kind": "image"},
        "encoder": {"name": "torchvision", "backbone": "resnet18", "weights": "DEFAULT", "train": "head"},
        "head": {"name": "recognition", "unknown": 0.05},
    },
    "detection": {
        "input": {"kind": "scene", "size": 320},
        "encoder": {"name": "raw"},
        "head": {"name": "detection", "detector": "small", "weights": "none"},
        "learning": {
            "step_items": 4,
            "rehearse": 1,
            "warm_up": 0,
            "average": 0.95,
            "optimizer": {"name": "adam", "lr": 0.0005},
        },
    },
    "teach": {
        "input": {"kind": "image"},
        "encoder": {"name": "torchvision", "backbone": "resnet18", "weights": "DEFAULT", "train": "head"},
        "head": {"name": "classification", "experts": ["bilinear", "prototype"], "descriptions": "words", "labels": "open"},
        # What five photos say must be seen at once.
        "learning": {"average": 0.8, "optimizer": {"name": "adam", "lr": 0.003}},
    },
    "image": {
        "input": {"kind": "image", "size": 224},
        "encoder": {"name": "torchvision", "backbone": "resnet18", "weights": "none", "train": "all", "layer_decay": 1.0},
        "head": {"name": "classification", "experts": ["linear"], "labels": "open"},
        "explanations": {"evaluations": 98},  # one pair of orders: seconds on a CPU, not half a minute
        "store": {"checkpoints": 10},  # of 180 MB each: the weights, their average, and two moments of Adam
    },
}
UNCHANGED: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
ABOUT = {
    "digits": "Vectors of 64 numbers (pictures of 8x8 pixels with values 0..16) and open labels.",
    "record": "Records of named numbers, strings and booleans. Put your own names under [model.input.fields].",
    "numbers": "Records, whose label is a number; it is answered with an interval that holds what it promises.",
    "tags": "Texts of which several labels may be true at once, or none.",
    "text": "Texts of any language, as hashed words and pieces of words.",
    "translation": "Texts whose label is a text: translated, shortened or put in another form, byte by byte.",
    "summary": "Texts whose label is a line of each: what it picks out, it may copy.",
    "seq2seq": "Texts whose label is a text, through a pretrained model of Hugging Face (a name on the hub, or a directory).",
    "behaviour": "Sequences of events, by name; the label is the event that followed.",
    "recommend": "Users and items, in contexts; the label is a click, or none. The head ratings takes numbers instead.",
    "products": "Users and items, of which one was chosen; POST /classes describes an item before anybody has chosen it.",
    "zeroshot": "Small pictures whose classes can be described: POST /classes makes one known before its first label.",
    "transfer": "Pictures, through a pretrained and frozen torchvision model; what learns are the head's experts.",
    "recognition": "Pictures of somebody or something: one makes an identity, and who is not known is answered as null.",
    "detection": "Pictures with things in them; a label is their boxes and classes, and so is an answer.",
    "teach": "As in transfer, and classes can be described: POST /classes makes one known before its first label.",
    "image": "Pictures, through a torchvision model that learns as a whole.",
}
PARTS: dict[str, tuple[str, Mapping[str, Callable[..., Any]]]] = {
    "input": ("kind", INPUTS),
    "encoder": ("name", ENCODERS),
    "head": ("name", HEADS),
}


def render(template: str, changes: Mapping[str, Mapping[str, Any]] = UNCHANGED) -> str:
    """Return a template as TOML, some sections put in the place of its own. What is left at its default is a comment."""
    sections = {**TEMPLATES[template], **changes}
    lines = [f"# everlearn.toml: {ABOUT[template]}", *_about_sources()]
    for part, (key, known) in PARTS.items():
        given = sections[part]
        lines += ["", f"[model.{part}]", f"# One of: {', '.join(known)}.", f"{key} = {_toml(given[key])}"]
        lines += _options(options_of(known[given[key]]).model_fields, given, table=f"model.{part}")
    for section, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            lines += ["", *_comment(field.default.__class__.__doc__ or ""), f"[{section}]"]
            lines += _options(type(field.default).model_fields, sections.get(section, {}), table=section)
    return "\n".join(lines) + "\n"


def _about_sources() -> Iterator[str]:
    yield "# A line that is commented out shows a default. The environment wins over this file, a flag over both:"
    yield "# EVERLEARN_SERVER_PORT=9000 everlearn serve --workers 2"


def _options(fields: Mapping[str, FieldInfo], given: Mapping[str, Any], *, table: str) -> list[str]:
    """Return the lines of a table: values that are given, defaults as comments, tables inside it last."""
    lines: list[str] = []
    tables: list[str] = []
    for name, field in fields.items():
        described = _comment(field.description) if field.description else []
        value = given.get(name, field.get_default(call_default_factory=True, validated_data={}))
        if isinstance(value, dict):
            prefix = "" if name in given else "# "
            tables += ["", *described, f"{prefix}[{table}.{name}]", *(f"{prefix}{k} = {_toml(v)}" for k, v in value.items())]
            tables += _optimizer_options() if name == "optimizer" else []
        else:
            lines += [*described, f"{'' if name in given else '# '}{name} = {_toml(value)}"]
    return lines + tables


def _optimizer_options() -> list[str]:
    """Return the options that each optimizer takes."""
    return [
        f"# {name}: " + ", ".join(f"{k} = {_toml(f.default)}" for k, f in options_of(factory).model_fields.items())
        for name, factory in OPTIMIZERS.items()
    ]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in text.splitlines()]


def _toml(value: Any) -> str:
    """Return a plain value as TOML, which is JSON but for the spelling of tuples and paths."""
    return json.dumps(value, default=str)
