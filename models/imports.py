"""What is named as package.module:name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import SpecificationError, told


def imported(field: str, path: str) -> Any:
    """Import a name from a module. Raises SpecificationError that names the field."""
    module_name, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), name)
    except Exception as exc:  # a module of the user's own may raise anything
        raise SpecificationError(field, f"can't import {path!r} ({told(exc)}); expected package.module:Class") from exc


class Parts(Mapping[str, Any]):
    """Names -> what `module:name` says, imported when it is asked for: a service should not wait for what it has no use for.

    Importing torchvision takes as long as importing torch.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._paths[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
