"""The command line. Heavy imports stay inside the commands: `everlearn --help` must not wait for torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.processes import EXIT_CONFIG
from service.settings import CONFIG_VARIABLE, SettingsError, load_settings
from service.store.errors import StoreError

app = typer.Typer(
    name="everlearn",
    help="The model server with a write-ahead log: predictions out, labels in, one durable version after another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
errors = Console(stderr=True, soft_wrap=True, highlight=False)


class Template(StrEnum):
    """The configurations that `everlearn init` writes."""

    digits = "digits"
    record = "record"
    numbers = "numbers"
    text = "text"
    tags = "tags"
    translation = "translation"
    summary = "summary"
    seq2seq = "seq2seq"
    behaviour = "behaviour"
    recommend = "recommend"
    products = "products"
    image = "image"
    transfer = "transfer"
    zeroshot = "zeroshot"
    recognition = "recognition"
    detection = "detection"
    teach = "teach"


class Demo(StrEnum):
    """The demos."""

    digits = "digits"
    sentiment = "sentiment"
    tags = "tags"
    translation = "translation"
    summary = "summary"
    behaviour = "behaviour"
    recommend = "recommend"
    products = "products"
    prices = "prices"
    transfer = "transfer"
    zeroshot = "zeroshot"
    teach = "teach"
    recognition = "recognition"
    detection = "detection"


class Peers(StrEnum):
    """The families of peers that `everlearn evaluate` runs beside its own."""

    river = "river"
    vw = "vw"


Config = Annotated[
    Path | None,
    typer.Option(help="Configuration file; without it ./everlearn.toml is read if it is there.", envvar=CONFIG_VARIABLE),
]
Data = Annotated[Path | None, typer.Option(help="Data directory.")]


@app.command()
def serve(
    config: Config = None,
    data: Data = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="API processes; the learner is one more.")] = None,
) -> None:
    """Serve the model over HTTP, and learn from the labels that come back."""
    from service.processes.logs import configure_logging
    from service.processes.supervisor import StartError, serve as serve_until_stopped

    with _one_line(SettingsError, StartError, StoreError):
        settings = load_settings(config, _flags(store={"data": data}, server={"host": host, "port": port, "workers": workers}))
        configure_logging("serve", settings.server.log_level)
        status = serve_until_stopped(
            settings,
            started=lambda url: errors.print(f"everlearn: listening on {url}, data in {settings.store.data}"),
            ready=lambda url: errors.print(f"everlearn: ready, {url}/docs shows how to talk to it"),
        )
    raise typer.Exit(status)


@app.command()
def init(
    template: Annotated[Template | None, typer.Option(help="What the model takes, and what it says.")] = None,
    output: Annotated[Path, typer.Option(help="File to write; it must not be there yet.")] = Path("everlearn.toml"),
    *,
    list_: Annotated[bool, typer.Option("--list", help="Say what templates there are, and write nothing.")] = False,
) -> None:
    """Write a configuration to start from, with a comment for every setting."""
    from service.templates import ABOUT, render

    if list_:
        for name, about in ABOUT.items():
            typer.echo(f"{name:12} {about}")
        return
    if template is None:
        errors.print("everlearn: name a template with --template; `everlearn init --list` says what there is")
        raise typer.Exit(EXIT_CONFIG)
    text = render(template)
    with _one_line(OSError), open(output, "x", encoding="utf-8") as file:
        file.write(text)
    errors.print(f"everlearn: wrote {output}; `everlearn serve --config {output}` serves it")


@app.command()
def demo(
    name: Annotated[Demo, typer.Argument(help="What to show.")] = Demo.digits,
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop at the end instead of serving on.")] = False,
    port: Annotated[int | None, typer.Option(help="Port to listen on; without it 8000, or a free one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data directory; without it a temporary one.")] = None,
    report: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")] = Path("demo-report.json"),
    plot: Annotated[Path, typer.Option(help="Where the learning curve goes.")] = Path("learning-curve.png"),
) -> None:
    """Start a service, stream real data through it over HTTP, and show it learn."""
    from importlib import import_module

    from service.demo.running import DemoFailed, Running

    shown = import_module(f"service.demo.{name.value}")
    with _one_line(DemoFailed, OSError):
        for path in (report, plot):
            if not path.parent.is_dir():
                raise DemoFailed(f"{path} can't be written: there is no folder {path.parent}")
        running = Running(shown.config(), data=data, port=port, console=Console(highlight=False, soft_wrap=True))
        shown.run(running, once=once, report=report, plot=plot)


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
    from service.evaluate.rows import StreamError
    from service.evaluate.run import run

    with _one_line(SettingsError, SpecificationError, StreamError, PeersMissing, OSError):
        run(stream, label, config, report=report, plot=plot, against=[family.value for family in against or []])


@app.command()
def versions(
    config: Config = None,
    data: Data = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
) -> None:
    """List the versions in a data directory, newest first."""
    from datetime import UTC, datetime

    from service.store.embedded import DataDirectory, EmbeddedCheckpointStore

    with _one_line(SettingsError, StoreError):
        directory = DataDirectory(_data_directory(config, data)).open()
        checkpoints = EmbeddedCheckpointStore(directory, keep=2)
        table = Table("version", "parent", "created", "feedback", "metrics (window)", "drift", "reason", "sha256")
        for row in checkpoints.page(None, limit):
            window = {name: value for name, value in row.metrics["window"].items() if name != "items" and value is not None}
            table.add_row(
                str(row.version),
                "-" if row.parent is None else str(row.parent),
                f"{datetime.fromtimestamp(row.created_at, UTC):%Y-%m-%d %H:%M:%S}",
                "-" if row.last_seq < row.first_seq else f"{row.first_seq}..{row.last_seq}",
                " ".join(f"{name} {value:.4g}" for name, value in window.items()) or "-",
                "here" if row.metrics["drift"].get("version") == row.version else str(row.metrics["drift"]["events"] or "-"),
                row.reason,
                row.sha256[:12],
            )
        checkpoints.close()
    Console().print(table)


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
    with _one_line(StoreError, SpecificationError, OSError):
        run(data, output, last=last, jobs=jobs)


@app.command()
def fork(
    data: Annotated[Path, typer.Option(help="Data directory; nothing in it is changed.")],
    to: Annotated[Path, typer.Option(help="Data directory to make.")],
) -> None:
    """Make a data directory with the same feedback and nothing learned, for other settings to learn it anew."""
    from service.store.embedded import fork as fork_directory

    with _one_line(StoreError):
        items = fork_directory(data, to)
    errors.print(f"everlearn: copied {items} feedback items; `everlearn serve --config F --data {to}` learns them")


@app.command()
def replay(
    data: Annotated[Path, typer.Option(help="Data directory; nothing in it is changed.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every version with what was committed.")] = False,
) -> None:
    """Recompute every version from the log; with --verify, exit 1 at the first that differs."""
    from models.errors import SpecificationError
    from service.verify import verify_versions

    if not verify:
        raise typer.BadParameter("say --verify: comparing is what replay is for", param_hint="--verify")
    with _one_line(StoreError, SpecificationError):
        identical = verify_versions(data)
    raise typer.Exit(0 if identical else 1)


def main() -> None:
    """Run the command line."""
    # A model of the user's own is imported by name from where the command runs, as `python -m` would.
    sys.path.insert(0, os.getcwd())
    app()


def _flags(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that were given, by section."""
    return {name: {k: v for k, v in values.items() if v is not None} for name, values in sections.items()}


def _data_directory(config: Path | None, data: Path | None) -> Path:
    return data or load_settings(config).store.data


@contextmanager
def _one_line(*expected: type[Exception]) -> Iterator[None]:
    """Say in one line what the user has to change, and exit."""
    try:
        yield
    except expected as exc:
        errors.print(f"everlearn: {exc}", markup=False)
        raise typer.Exit(EXIT_CONFIG) from exc


if __name__ == "__main__":
    main()
