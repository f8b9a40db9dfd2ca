"""Commands for what is kept: versions, the log, and copies of both."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.cli.application import MOST, AsJson, Config, Data, app, data_directory, one_line, say, show_table
from service.reasons import REFUSAL
from service.settings import SettingsError
from service.store.errors import StoreError
from service.store.protocols import Version

SHOWN = ("version", "parent", "created_at", "first_seq", "last_seq", "reason", "superseded", "metrics", "sha256", "stored")


class Format(StrEnum):
    """What `everlearn export` writes."""

    safetensors = "safetensors"
    torch = "torch"
    onnx = "onnx"


@app.command()
def versions(
    config: Config = None,
    data: Data = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=MOST)] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """List the versions in a data directory, newest first."""
    from service.store.embedded import DataDirectory, EmbeddedCheckpointStore

    with one_line(SettingsError, StoreError):
        directory = DataDirectory(data_directory(config, data)).open()
        checkpoints = EmbeddedCheckpointStore(directory, keep=2)
        rows = list(checkpoints.page(None, limit))
        checkpoints.close()
    if as_json:
        for row in rows:
            typer.echo(json.dumps({name: getattr(row, name) for name in SHOWN}))
    else:
        show_table(("version", "from", "created", "feedback", "reason", "metric"), map(_cells, rows))


def _cells(row: Version) -> list[str]:
    window = {name: value for name, value in row.metrics["window"].items() if name != "items" and value is not None}
    return [
        str(row.version),
        "-" if row.parent is None else str(row.parent),
        f"{datetime.fromtimestamp(row.created_at, UTC):%Y-%m-%d %H:%M:%S}",
        "-" if row.last_seq < row.first_seq else f"{row.first_seq}..{row.last_seq}",
        _why(row),
        next((f"{name} {value:.4g}" for name, value in window.items()), "-"),
    ]


def _why(row: Version) -> str:
    """Return why a version was made, and what there is to know of it."""
    drift = ["drift"] if row.first_seq <= row.metrics["drift"].get("seq", 0) <= row.last_seq else []
    left = [] if row.superseded is None else [f"left by {row.superseded}"]
    aside = [f"{len(row.quarantined)} in quarantine"] if row.quarantined and row.reason != REFUSAL else []
    return ", ".join([row.reason, *drift, *aside, *left])


@app.command()
def fork(
    data: Annotated[Path, typer.Option(help="Data directory; nothing in it is changed.")],
    to: Annotated[Path, typer.Option(help="Data directory to make.")],
) -> None:
    """Make a data directory with the same feedback and nothing learned, for other settings to learn it anew."""
    from service.store.embedded import fork as fork_directory

    with one_line(StoreError):
        items = fork_directory(data, to)
    say(f"copied {items} feedback items; `everlearn serve --config F --data {to}` learns them")


@app.command()
def replay(
    config: Config = None,
    data: Data = None,
    *,
    to: Annotated[
        int | None, typer.Option(help="Version to make anew, from the nearest checkpoint before it.", min=0, max=MOST)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the files of the version that --to names.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Make all versions anew, up to the first that differs.")] = False,
) -> None:
    """Recompute versions from the log, and compare them with what was committed; exit 1 where one differs."""
    from models.errors import SpecificationError
    from service.verify import rebuild_version, verify_versions

    if verify == (to is not None) or (output is not None and to is None):
        raise typer.BadParameter("say --verify, or --to with a version; --output goes with --to")
    with one_line(SettingsError, StoreError, SpecificationError):
        directory = data_directory(config, data)
        identical = verify_versions(directory) if to is None else rebuild_version(directory, to, output)
    raise typer.Exit(0 if identical else 1)


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="Folder to write to, or the file itself; nothing is overwritten.")],
    config: Config = None,
    data: Data = None,
    version: Annotated[int | None, typer.Option(help="Version to export; without it the newest.", min=0, max=MOST)] = None,
    format: Annotated[
        Format, typer.Option(help="The weights, a program of torch.export, or one of ONNX.")
    ] = Format.safetensors,
) -> None:
    """Write a version as files for others to load: weights or a program, and a JSON file that describes it."""
    from models.errors import ModelError
    from service.export import export as export_version

    with one_line(SettingsError, StoreError, ModelError, OSError):
        file = export_version(data_directory(config, data), version, output, format.value)
    say(f"wrote {file} and {file.with_suffix('.json').name}")


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(help="Folder to make; its parent should be on another disk.")],
    config: Config = None,
    data: Data = None,
    base: Annotated[Path | None, typer.Option(help="Earlier backup: checkpoints that it has are linked, not copied.")] = None,
) -> None:
    """Copy the data directory, also while it is served: all that was acknowledged before, or nothing."""
    from service.store.embedded import back_up

    with one_line(SettingsError, StoreError):
        made = back_up(data_directory(config, data), to, base=base)
    held = "no version" if made.version is None else f"version {made.version}"
    say(f"{to} holds {held} and the log up to seq {made.log_seq} ({made.copied} checkpoint files copied, {made.linked} linked)")
    for version in made.damaged:
        say(
            f"the checkpoint of version {version} is damaged and was left out; `everlearn replay --to {version}` makes it again"
        )


@app.command()
def restore(
    backup: Annotated[Path, typer.Argument(help="Folder that `everlearn backup` made; nothing in it is changed.")],
    data: Annotated[Path, typer.Option(help="Data directory to make.")],
    next_seq: Annotated[
        int | None,
        typer.Option(help="Sequence number for the next feedback, over those given since the backup.", min=1, max=MOST),
    ] = None,
) -> None:
    """Make a data directory of a backup, every file checked; it goes on from there as the service would have."""
    from service.store.embedded import restore as restore_directory

    with one_line(StoreError):
        made = restore_directory(backup, data, next_seq=next_seq)
    held = "no version" if made.version is None else f"version {made.version}"
    say(f"{data} holds {held} and the log up to seq {made.log_seq}; {made.copied} files checked")
    if next_seq is None:
        say(
            f"what was acknowledged after the backup is not in it, and numbers from {made.log_seq + 1} on are given"
            " anew: --next-seq keeps them apart, and clients that sent keys may send again"
        )
