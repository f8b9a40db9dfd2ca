"""Commands that learn without a server."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.cli.application import app, one_line
from service.settings import SettingsError
from service.store.errors import StoreError


class Peers(StrEnum):
    """The families of peers that `everlearn evaluate` runs beside its own."""

    river = "river"
    vw = "vw"


@app.command()
def evaluate(
    stream: Annotated[Path, typer.Argument(help="CSV file with a header; its rows are taken in their order.")],
    *,
    label: Annotated[str, typer.Option(help="Column that holds the label.")],
    config: Annotated[Path | None, typer.Option(help="Configuration; without it columns are typed from the file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where the figures go, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where the curve of the metric goes, with drift marked.")] = None,
    against: Annotated[
        list[Peers] | None, typer.Option(help="Run these on the same rows too, and compare; may be given twice.")
    ] = None,
) -> None:
    """Predict each row of a file, then learn from it: the same learning as `serve`, without a server."""
    from models.errors import SpecificationError
    from service.evaluate.peers import PeersMissing
    from service.evaluate.run import run
    from service.tables import StreamError

    with one_line(SettingsError, SpecificationError, StreamError, PeersMissing, OSError):
        run(stream, label, config, report=report, plot=plot, against=[family.value for family in against or []])


@app.command()
def tune(
    data: Annotated[Path, typer.Option(help="Data directory; nothing in it is changed.")],
    output: Annotated[Path, typer.Option(help="Where better settings go, if there are any.")] = Path("everlearn-tuned.toml"),
    last: Annotated[int, typer.Option(help="Newest items of the log to compare settings by.", min=1)] = 10_000,
    jobs: Annotated[int | None, typer.Option(help="Settings that are tried at once; without it one per core.", min=1)] = None,
) -> None:
    """Learn the recorded log again with other settings, and write those that would have served better."""
    from models.errors import SpecificationError
    from service.tune import run

    if not output.parent.is_dir() or output.exists():
        raise typer.BadParameter(f"{output} is there already, or its folder is not", param_hint="--output")
    with one_line(StoreError, SpecificationError, OSError):
        run(data, output, last=last, jobs=jobs)
