"""Commands that serve a model, or help to begin."""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.application import Config, Data, app, one_line, say
from service.processes import EXIT_CONFIG
from service.settings import PREFIX, SettingsError, load_settings
from service.store.errors import StoreError

log = logging.getLogger(__name__)


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


@app.command()
def serve(
    config: Config = None,
    data: Data = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="API processes; the learner is one more.")] = None,
    *,
    standby: Annotated[
        bool | None, typer.Option("--standby", help="Be a replica: learn once no other service on this directory does.")
    ] = None,
) -> None:
    """Serve the model over HTTP, and learn from the labels that come back."""
    from service.processes.logs import configure_logging
    from service.processes.supervisor import StartError, serve as serve_until_stopped

    with one_line(SettingsError):
        server = {"host": host, "port": port, "workers": workers}
        settings = load_settings(config, _flags(store={"data": data}, server=server, learner={"standby": standby}))
    configure_logging("serve", settings.server.log_level, settings.server.log_format)
    # Who reads lines as JSON must find nothing else.
    as_json = settings.server.log_format == "json"

    def announce(event: str, words: str, **facts: str) -> None:
        if as_json:
            log.info(event, extra=facts)
        else:
            say(words)

    store = str(settings.store.data)
    with one_line(StartError, StoreError, say=partial(log.error, "serve.failed: %s") if as_json else say):
        status = serve_until_stopped(
            settings,
            started=lambda url: announce("serve.listening", f"listening on {url}, data in {store}", url=url, data=store),
            ready=lambda url: announce("serve.ready", f"ready, {url}/docs shows how to talk to it", url=url),
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
        say("name a template with --template; `everlearn init --list` says what there is")
        raise typer.Exit(EXIT_CONFIG)
    text = render(template)
    with one_line(OSError):
        try:
            with open(output, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as exc:
            raise FileExistsError(f"{output} is there already, and stays as it is; --output writes another file") from exc
    say(f"wrote {output}; `everlearn serve --config {output}` serves it")


@app.command()
def demo(
    name: Annotated[Demo, typer.Argument(help="What to show.")] = Demo.digits,
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop at the end instead of serving on.")] = False,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; without it 8000, or a free one.", envvar=f"{PREFIX}SERVER_PORT")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data directory; without it a temporary one.")] = None,
    report: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")] = Path("demo-report.json"),
    plot: Annotated[Path, typer.Option(help="Where the learning curve goes.")] = Path("learning-curve.png"),
) -> None:
    """Start a service, stream real data through it over HTTP, and show it learn."""
    from importlib import import_module

    from rich.console import Console

    from service.demo.running import DemoFailed, Running

    shown = import_module(f"service.demo.{name.value}")
    with one_line(DemoFailed, OSError):
        for path in (report, plot):
            if not path.parent.is_dir():
                raise DemoFailed(f"{path} can't be written: there is no folder {path.parent}")
        running = Running(shown.config(), data=data, port=port, console=Console(highlight=False, soft_wrap=True))
        shown.run(running, once=once, report=report, plot=plot)


def _flags(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that were given, by section."""
    return {name: {k: v for k, v in values.items() if v is not None} for name, values in sections.items()}
