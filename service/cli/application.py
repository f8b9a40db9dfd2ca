"""The application that commands join, and what several of them take and say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from service.processes import EXIT_CONFIG
from service.settings import CONFIG_VARIABLE, load_settings

app = typer.Typer(
    name="everlearn",
    help="The model server with a write-ahead log: predictions out, labels in, one durable version after another.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WIDE = 10_000  # characters of a line that no terminal folds
MOST = 2**63 - 1  # of a sequence number, a version, or anything that is counted

Config = Annotated[
    Path | None,
    typer.Option(help="Configuration file; without it ./everlearn.toml is read if it is there.", envvar=CONFIG_VARIABLE),
]
Data = Annotated[Path | None, typer.Option(help="Data directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="An object of JSON a line, with more in it.")]


def data_directory(config: Path | None, data: Path | None) -> Path:
    """Return the data directory that a command works on."""
    return data or load_settings(config).store.data


def say(line: str) -> None:
    """Say something to whoever runs a command."""
    typer.echo(f"everlearn: {line}", err=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Show rows under the names of their columns; where the terminal is narrow, the last column is folded."""
    from rich.console import Console  # not for `serve`, which must not wait for it
    from rich.table import Column, Table

    *most, last = columns
    table = Table(*(Column(name, no_wrap=True) for name in most), Column(last, overflow="fold"), box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)


@contextmanager
def one_line(*expected: type[Exception], say: Callable[[str], object] = say) -> Iterator[None]:
    """Say in one line what the user has to change, and exit."""
    try:
        yield
    except expected as exc:
        say(str(exc))
        raise typer.Exit(EXIT_CONFIG) from exc
