"""Names -> inputs, encoders and heads, and a model from its specification.

A specification is plain data, as it stands in everlearn.toml and is recorded in the store:
{"input": {"kind": ...}, "encoder": {"name": ...}, "head": {"name": ...}}, each with its options, or
{"class": "package.module:Class", ...options} for a model of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from models.base import Encoder, Head, OnlineModel
from models.errors import SpecificationError, told
from models.imports import Parts, imported
from models.inputs import InputKind, Picture
from models.options import check_options

INPUTS: Mapping[str, Callable[..., InputKind]] = Parts(
    {
        "vector": "models.inputs:Vector",
        "record": "models.inputs:Record",
        "text": "models.inputs:Text",
        "image": "models.inputs:Picture",
        "scene": "models.scenes:Scene",
        "sequence": "models.sequences:Events",
        "interaction": "models.interactions:Interactions",
    }
)
ENCODERS: Mapping[str, Callable[..., Encoder]] = Parts(
    {
        "tabular": "models.encoders.tabular:Tabular",
        "text": "models.encoders.text:HashedText",
        "sentence": "models.encoders.text:SentenceEncoder",
        "convolutional": "models.encoders.convolutional:Convolutional",
        "torchvision": "models.encoders.vision:Backbone",
        "sequence": "models.encoders.sequence:Recurrent",
        "reader": "models.encoders.reading:Reader",
        "raw": "models.encoders.raw:Raw",
    }
)
HEADS: Mapping[str, type[Head]] = Parts(
    {
        "classification": "models.heads.classification:Classification",
        "multilabel": "models.heads.multilabel:MultiLabel",
        "detection": "models.heads.detection:Detection",
        "generation": "models.heads.generation:Generation",
        "choices": "models.heads.choices:Choices",
        "clicks": "models.heads.values:Clicks",
        "ratings": "models.heads.values:Ratings",
        "recognition": "models.heads.recognition:Recognition",
        "regression": "models.heads.regression:Regression",
        "seq2seq": "models.heads.seq2seq:Seq2Seq",
    }
)

Specification = Mapping[str, Any]


def resolve(specification: Specification) -> dict[str, Any]:
    """Return the specification with every default filled in. Raises SpecificationError."""
    if "class" in specification:
        options = {name: value for name, value in specification.items() if name != "class"}
        return {"class": specification["class"], **check_options("model", _custom(specification), options)}
    unknown = set(specification) - {"input", "encoder", "head"}
    if unknown:
        raise SpecificationError(f"model.{min(unknown)}", "no such section; allowed: class, encoder, head, input")
    encoder = _resolve_part("model.encoder", "name", ENCODERS, specification.get("encoder"))
    return {
        "input": _resolve_part("model.input", "kind", INPUTS, _preferred(specification.get("input"), encoder)),
        "encoder": encoder,
        "head": _resolve_part("model.head", "name", HEADS, specification.get("head")),
    }


def build_model(specification: Specification, *, seed: int = 0) -> OnlineModel:
    """Build a model with initial weights that depend on nothing but the specification and the seed.

    Raises SpecificationError that names the field and says what is allowed.
    """
    spec = resolve(specification)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "class" in spec:
            return _build_custom(spec)
        kind = _build_part(INPUTS, "kind", spec["input"])
        encoder = _build_part(ENCODERS, "name", spec["encoder"], kind)
        if encoder.gives != (takes := HEADS[spec["head"]["name"]].takes):
            detail = f"it gives {encoder.gives}, and the head {spec['head']['name']} takes {takes}"
            raise SpecificationError("model.encoder", detail)
        head = _build_part(HEADS, "name", spec["head"], encoder.width, encoder.plain)
        return OnlineModel(input=kind, encoder=encoder, head=head)


def without_weights(specification: Specification) -> dict[str, Any]:
    """Return the specification of the same architecture with no weights to fetch: a checkpoint brings them."""
    bare = {
        half: {**options, "weights": "none"}
        for half in ("encoder", "head")
        if "weights" in (options := specification.get(half, {}))
    }
    return {**specification, **bare}


def part(field: str, key: str, known: Mapping[str, Any], specification: Specification | None) -> tuple[Any, dict[str, Any]]:
    """Look up a named part: return what makes it and its options with defaults. Raises SpecificationError."""
    allowed = ", ".join(sorted(known))
    if not isinstance(specification, Mapping) or key not in specification:
        raise SpecificationError(f"{field}.{key}", f"missing; allowed: {allowed}")
    name = specification[key]
    if not isinstance(name, str) or name not in known:
        raise SpecificationError(f"{field}.{key}", f"{name!r} is not one of {allowed}")
    options = {option: value for option, value in specification.items() if option != key}
    return known[name], check_options(field, known[name], options)


def _preferred(given: Specification | None, encoder: Specification) -> Specification | None:
    """Return an input's options with those filled in that its encoder's weights were made for."""
    prefers = getattr(ENCODERS[encoder["name"]], "preferred_input", None)
    if prefers is None or given is None or given.get("kind") != Picture.kind or given.keys() & {"size", "resize"}:
        return given
    return {**prefers(encoder), **given}


def _resolve_part(field: str, key: str, known: Mapping[str, Any], spec: Specification | None) -> dict[str, Any]:
    _, options = part(field, key, known, spec)
    assert spec is not None
    return {key: spec[key], **options}


def _build_part(known: Mapping[str, Any], key: str, spec: Specification, *given: Any) -> Any:
    return known[spec[key]](*given, **{option: value for option, value in spec.items() if option != key})


def _custom(specification: Specification) -> type[OnlineModel]:
    path = str(specification["class"])
    factory: object = imported("model.class", path)
    if not (isinstance(factory, type) and issubclass(factory, OnlineModel)):
        raise SpecificationError("model.class", f"{path} is not a subclass of models.OnlineModel")
    return factory


def _build_custom(specification: Specification) -> OnlineModel:
    options = {name: value for name, value in specification.items() if name != "class"}
    try:
        return _custom(specification)(**options)
    except (SpecificationError, MemoryError, torch.OutOfMemoryError):  # what another try may get is no wrong setting
        raise
    except Exception as exc:
        raise SpecificationError("model.class", f"{specification['class']} can't be made ({told(exc)})") from exc
