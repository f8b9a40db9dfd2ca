"""`everlearn keys` and `everlearn audit`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from service.access.audit import AuditLog, local_source
from service.access.callers import AccessError
from service.access.keys import Secret, add_key, read_keys, remove_key, rotate_key
from service.cli.application import MOST, AsJson, Config, Data, app, one_line, say, show_table
from service.settings import DEFAULT_CONFIG, AccessSettings, SettingsError, load_settings
from service.store.embedded import DataDirectory
from service.store.errors import StoreError

keys = typer.Typer(help="Make, list, rotate and remove API keys. The service sees it at once.", no_args_is_help=True)
app.add_typer(keys, name="keys")

Name = Annotated[str, typer.Argument(help="Whose key it is: the log records what it teaches under this name.")]


class ScopeName(StrEnum):
    """What a key may do."""

    predict = "predict"
    feedback = "feedback"
    admin = "admin"


@keys.command("add")
def add(
    name: Name,
    scope: Annotated[list[ScopeName], typer.Option(help="What it may do; may be given several times.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    with _changing(config, data, f"keys add {name}", scopes=[each.value for each in scope]) as path:
        typer.echo(add_key(path, name, [each.value for each in scope]))


@keys.command("list")
def list_keys(config: Config = None, data: Data = None) -> None:
    """List the names, what they may do, and how long their secrets are valid."""
    with one_line(SettingsError, AccessError):
        folder, access = _place(config, data)
        rows = [
            (holder.name, " ".join(holder.scopes), each.sha256[:12], f"{each.created_at:%Y-%m-%d %H:%M}", _validity(each))
            for holder in read_keys(folder / access.keys).keys
            for each in holder.secrets
        ]
    show_table(["name", "scopes", "secret (start of its hash)", "made", "valid"], rows)


@keys.command("rotate")
def rotate(
    name: Name,
    hours: Annotated[float, typer.Option(help="How long the secret before stays valid beside the new one.", min=0)] = 24.0,
    config: Config = None,
    data: Data = None,
) -> None:
    """Make another secret for a name and print it, this once. The one before it stays valid for a while."""
    with _changing(config, data, f"keys rotate {name}", hours=hours) as path:
        typer.echo(rotate_key(path, name, timedelta(hours=hours)))


@keys.command("remove")
def remove(name: Name, config: Config = None, data: Data = None) -> None:
    """Forget a name and all its secrets: it is refused from now on. What it has taught stays."""
    with _changing(config, data, f"keys remove {name}") as path:
        remove_key(path, name)


@app.command()
def audit(
    config: Config = None,
    data: Data = None,
    limit: Annotated[int, typer.Option(help="How many lines, newest first.", min=1, max=MOST)] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the admin acts that are on record: who asked for what, and what was answered."""
    with one_line(SettingsError, StoreError):
        directory = DataDirectory(_place(config, data)[0]).open()
        records = list(islice(reversed(list(AuditLog(directory.audit).read())), limit))
    if as_json:
        for record in records:
            typer.echo(json.dumps(record))
    else:
        show_table(("at", "source", "act", "status", "more"), map(_cells, records))


def _cells(record: dict[str, Any]) -> list[str]:
    """Return the cells of an act on record, the last of them whatever has no column of its own."""
    at, source, act, event = (record.pop(name, None) or "-" for name in ("at", "source", "act", "event"))
    more = " ".join(f"{name}={value}" for name, value in record.items() if name != "status" and value is not None)
    return [str(at)[:19].replace("T", " "), str(source), str(act), str(record.get("status", event)), more]


@contextmanager
def _changing(config: Path | None, data: Path | None, act: str, **facts: Any) -> Iterator[Path]:
    """Give the file of keys to change, and put the change on record before it is made."""
    with one_line(SettingsError, AccessError, StoreError):
        folder, access = _place(config, data)
        directory = DataDirectory(folder).create()
        AuditLog(directory.audit).append({"source": local_source(), "act": act, "event": "asked", **facts})
        yield folder / access.keys
        if access.mode != "keys":
            say('keys count once access.mode = "keys"')


def _place(config: Path | None, data: Path | None) -> tuple[Path, AccessSettings]:
    """Return the data directory and the settings of access: the defaults where there is a directory and no configuration."""
    if data is not None and config is None and not DEFAULT_CONFIG.is_file():
        return data, AccessSettings()
    settings = load_settings(config, {"store": {"data": data}} if data else {})
    return settings.store.data, settings.access


def _validity(secret: Secret) -> str:
    if secret.expires_at is None:
        return "until it is rotated or removed"
    return f"{'until' if secret.valid(datetime.now(UTC)) else 'expired'} {secret.expires_at:%Y-%m-%d %H:%M}"
