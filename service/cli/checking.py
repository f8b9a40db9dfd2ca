"""The command that looks for what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from service.cli.application import Config, Data, app, one_line
from service.settings import SettingsError, load_settings

if TYPE_CHECKING:  # it needs torch
    from service.doctor import Finding


@app.command()
def doctor(config: Config = None, data: Data = None) -> None:
    """Look at configuration, model, devices, data directory, disk, clock, port and service; exit 1 where something is wrong."""
    with one_line(SettingsError):
        settings = load_settings(config, {"store": {"data": data}} if data else {})
    from service.doctor import examine

    raise typer.Exit(0 if examine(settings, _tell) else 1)


def _tell(finding: Finding) -> None:
    typer.echo(f"{finding.state:5}  {finding.about:11}  {finding.words}")
    if finding.advice:
        typer.echo(f"{'':20}-> {finding.advice}")
