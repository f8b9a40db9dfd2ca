"""Commands that change what was learned: back to a version, released from quarantine, without some feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.application import MOST, Config, Data, app, data_directory, one_line, say
from service.settings import SettingsError
from service.store.errors import StoreError

Wait = Annotated[float, typer.Option(help="Seconds to wait until it is carried out, where a service runs.", min=0)]


@app.command()
def rollback(
    to: Annotated[int, typer.Argument(help="Version to go back to.", min=0, max=MOST)],
    config: Config = None,
    data: Data = None,
    *,
    reapply: Annotated[
        bool, typer.Option("--reapply", help="Learn the feedback after it again, instead of skipping it.")
    ] = False,
    wait: Wait = 60.0,
) -> None:
    """Make a new version with the weights and the learning state of an older one; learning goes on from it."""
    _act(config, data, "rollback", {"to": to, "reapply": reapply}, wait)


@app.command()
def release(
    version: Annotated[int, typer.Argument(help="Version that quarantined feedback.", min=0, max=MOST)],
    config: Config = None,
    data: Data = None,
    wait: Wait = 60.0,
) -> None:
    """Learn the feedback that a version quarantined, whatever the gate says of it."""
    _act(config, data, "release", {"version": version}, wait)


@app.command()
def forget(
    seqs: Annotated[list[int] | None, typer.Argument(help="Sequence numbers of the feedback.", min=1, max=MOST)] = None,
    config: Config = None,
    data: Data = None,
    *,
    key: Annotated[list[str] | None, typer.Option(help="Key of the feedback; may be given more than once.")] = None,
    source: Annotated[str | None, typer.Option(help="All that this source has brought so far.")] = None,
    wait: Wait = 600.0,
) -> None:
    """Unlearn feedback, to the bit, and erase what it said from the data directory."""
    from service.acting import to_forget

    if sum(map(bool, (seqs, key, source))) != 1:
        raise typer.BadParameter("name sequence numbers, --key or --source")
    with one_line(SettingsError, StoreError):
        folder = data_directory(config, data)
        asked = to_forget(folder, seqs=seqs or (), keys=key or (), source=source)
    _act(config, data, "forget", asked, wait)


@app.command()
def whatif(
    without: Annotated[
        list[int], typer.Option(help="Sequence number of feedback to leave out; may be given more than once.", min=1, max=MOST)
    ],
    config: Config = None,
    data: Data = None,
    instance: Annotated[
        list[str] | None, typer.Option(help="Instance to answer, as JSON; without one those that are left out.")
    ] = None,
) -> None:
    """Show how the model would answer had some feedback never been given; nothing is changed."""
    from models.errors import SpecificationError
    from service.whatif import run

    with one_line(SettingsError, StoreError, SpecificationError):
        run(data_directory(config, data), without, instance or [])


def _act(config: Path | None, data: Path | None, kind: Any, asked: Any, wait: float) -> None:
    from service.acting import act

    with one_line(SettingsError, StoreError):
        say(act(data_directory(config, data), kind, asked, wait=wait))
