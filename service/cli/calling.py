"""Commands that call a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.application import Config, app, one_line, say
from service.settings import KEY_VARIABLE, URL_VARIABLE, SettingsError, service_url
from service.tables import StreamError

INTERRUPTED = 130  # exit status, as a shell has it for Ctrl-C

Url = Annotated[
    str | None, typer.Option(help="Where the service is; without it where its configuration says.", envvar=URL_VARIABLE)
]
Key = Annotated[
    str | None,
    typer.Option(help="API key, or bearer token; in the environment other users can't see it.", envvar=KEY_VARIABLE),
]


@app.command()
def predict(
    source: Annotated[Path, typer.Argument(help="CSV file, file of JSON lines, picture, or folder of pictures.", exists=True)],
    url: Url = None,
    key: Key = None,
    *,
    config: Config = None,
    label: Annotated[str | None, typer.Option(help="Column or field to leave out: it holds the label.")] = None,
    top_k: Annotated[int | None, typer.Option(help="How many classes or items each answer names, at most.", min=1)] = None,
) -> None:
    """Predict what is in a file, and print a line of JSON for each item."""
    from service.calling import predict_file
    from service.client import ClientError

    with one_line(SettingsError, ClientError, StreamError, OSError):
        predict_file(source, url or service_url(config), key, label=label, top_k=top_k, tell=typer.echo, warn=say)


@app.command()
def feedback(
    source: Annotated[
        Path, typer.Argument(help="CSV file, file of JSON lines, or folder with sub-folders of pictures by label.", exists=True)
    ],
    url: Url = None,
    key: Key = None,
    *,
    config: Config = None,
    label: Annotated[str | None, typer.Option(help="Column or field that holds the label.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait at the end until all of it is served.", min=0, max=30)] = 30.0,
) -> None:
    """Send the labelled items of a file. Cut off, the same command goes on: what was taken is not learned twice."""
    from service.calling import Stopped, send_file
    from service.client import ClientError

    try:
        with one_line(SettingsError, ClientError, StreamError, OSError):
            say(send_file(source, url or service_url(config), key, label=label, wait=wait))
    except Stopped as exc:
        say(str(exc))
        raise typer.Exit(INTERRUPTED) from exc
