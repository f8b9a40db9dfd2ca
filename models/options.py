"""Options of a named part, read from its constructor: one place says which exist, of what type and with what default."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from models.errors import SpecificationError


def options_of(factory: Callable[..., Any]) -> type[BaseModel]:
    """Return the pydantic model of a factory's keyword-only parameters that have annotations for settings.

    A parameter without a default that the builder itself gives (`given`) is left out by naming it positionally.
    """
    hints = typing.get_type_hints(_function(factory), include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hints[name], default)
    return create_model("Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)


def check_options(field: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with defaults filled in. Raises SpecificationError that names the field and what is allowed."""
    model = options_of(factory)
    try:
        checked = model.model_validate(dict(options))
    except ValidationError as exc:
        first = exc.errors()[0]
        name = ".".join([field, *map(str, first["loc"])])
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(sorted(model.model_fields)) or "none"
            raise SpecificationError(name, f"no such option; allowed: {allowed}") from exc
        raise SpecificationError(name, f"{first['msg']} (got {first['input']!r})") from exc
    return {name: getattr(checked, name) for name in model.model_fields}


def _function(factory: Callable[..., Any]) -> Callable[..., Any]:
    return factory.__init__ if inspect.isclass(factory) else factory
