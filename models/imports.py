"""What is named as package.module:name."""

from __future__ import annotations

import importlib
from typing import Any

from models.errors import SpecificationError, told


def imported(field: str, path: str) -> Any:
    """Import a name from a module. Raises SpecificationError that names the field."""
    module_name, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as exc:  # a module of the user's own may raise anything
        raise SpecificationError(field, f"can't import {path!r} ({told(exc)}); expected package.module:Class") from exc
