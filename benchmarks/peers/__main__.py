"""What others need for a prediction: /predict of the MLP 64-128-10 on everlearn, LitServe, BentoML, Ray Serve and MLServer.

    python -m benchmarks.peers [--rounds N] [--seconds S]

Each peer is installed at its first use, and tried with several of the settings that its documentation names for a small model
on one core: the best at 1 and the best at 32 connections count. All run at once; each has core 0 to itself while it is measured
(the other peers are stopped, everlearn idles), wrk has core 1. everlearn runs as it comes. A peer that can not be installed or
started is named with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path

from benchmarks.load import closed
from benchmarks.peers.environment import Unavailable, interpreter
from benchmarks.peers.field import EVERLEARN, LITSERVE, PEERS, Peer
from benchmarks.peers.running import RunningPeer, running
from benchmarks.rounds import Rounds, Row, interleaved, options
from benchmarks.servers import LOAD, learned, question

RATE, P50 = attrgetter("rate"), attrgetter("p50")


def side(peer: Peer, settings: str) -> str:
    """Return the name of a peer with one of its settings, as a side of the rounds."""
    return f"{peer.name} ({settings})"


def started(stack: ExitStack) -> tuple[dict[str, RunningPeer], dict[str, str]]:
    """Install every peer, then start each with each of its settings; return those that run by side, and why others don't."""
    pythons: dict[str, Path] = {}
    runs: dict[str, RunningPeer] = {}
    missing: dict[str, str] = {}
    for peer in PEERS:
        with named(peer.name, missing):
            pythons[peer.name] = interpreter(peer)
    for peer in (peer for peer in PEERS if peer.name in pythons):
        for settings, environment in peer.settings.items():
            name = side(peer, settings)
            with named(name, missing):
                runs[name] = stack.enter_context(running(peer, pythons[peer.name], environment))
                print(f"{name} runs", flush=True)
    return runs, missing


@contextmanager
def named(name: str, missing: dict[str, str]) -> Iterator[None]:
    """Keep why something is unavailable."""
    try:
        yield
    except Unavailable as reason:
        print(f"{name} does not run here: {reason}", flush=True)
        missing[name] = str(reason)


def best(rounds: Rounds) -> dict[str, str]:
    """Return the side of each peer, by its name, with the settings that served most requests."""
    sides = {peer.name: [name for name in rounds.sides if name.startswith(f"{peer.name} (")] for peer in PEERS}
    return {name: max(of, key=lambda each: rounds.median(each, RATE)) for name, of in sides.items() if of}


def remarks(rounds: Rounds, missing: Mapping[str, str]) -> str:
    """Return a line for each server: what it does for a request, its figures with each of its settings, the best in bold."""
    fastest = best(rounds)
    lines = [f"everlearn, {figures(rounds, 'everlearn')}: {EVERLEARN}"]
    for peer in (peer for peer in PEERS if peer.name in fastest):
        settings = {name: side(peer, name) for name in peer.settings if side(peer, name) in rounds.sides}
        told = [f"{name} {figures(rounds, of)}" for name, of in settings.items()]
        marked = [f"**{text}**" if of == fastest[peer.name] else text for text, of in zip(told, settings.values(), strict=True)]
        lines.append(f"{peer.release.replace('==', ' ')}: {peer.does}. {'; '.join(marked)}")
    lines += [f"{name} does not run here: {' '.join(reason.split())}" for name, reason in missing.items()]
    return "".join(f"\n  - {line}" for line in lines)


def figures(rounds: Rounds, name: str) -> str:
    """Return what a side was measured with."""
    return f"{rounds.median(name, RATE):.0f}/s p50 {rounds.median(name, P50):.2f} ms"


def row(connections: int, rounds: Rounds, missing: Mapping[str, str]) -> Row:
    """Compare everlearn with LitServe at 1 connection, with the best of all peers at more."""
    fastest = best(rounds)
    ratios = {peer: rounds.ratio("everlearn", name, RATE) for peer, name in fastest.items()}
    against, factor = (
        (LITSERVE.name, 4) if connections == 1 else (min(ratios, key=lambda peer: ratios[peer].median, default=""), 2)
    )
    told = [f"{ratio} of {peer}" for peer, ratio in sorted(ratios.items(), key=lambda each: each[0] != against)]
    return Row(
        number=3,
        figure=f"/predict, MLP, {connections} connection{'s' * (connections > 1)}, requests/s beside peers",
        against=", ".join(peer.name for peer in PEERS),
        goal=f"at least {factor}x {'LitServe' if connections == 1 else 'the best of them'}",
        measured="; ".join(told) or "no peer runs here",
        reached=against in ratios and ratios[against].median >= factor,
        remarks=remarks(rounds, missing),
        details={
            "requests/s": rounds.medians(RATE),
            "p50 ms": rounds.medians(P50),
            "settings": {peer.name: peer.settings for peer in PEERS},
            "requirements": {peer.name: peer.requirements for peer in PEERS},
        },
    )


def main() -> None:
    given = options(__doc__, rounds=5, seconds=5)
    with ExitStack() as stack:
        runs, missing = started(stack)
        service = stack.enter_context(learned())
        for connections in (1, 32):
            ours = partial(
                closed, f"{service.url}/predict", question(), connections=connections, seconds=given.seconds, core=LOAD
            )
            theirs = {name: partial(run.answered, connections, given.seconds) for name, run in runs.items()}
            rounds = interleaved({"everlearn": ours, **theirs}, given.rounds)
            found = row(connections, rounds, missing)
            found.write()
            print(found.remarks.strip("\n"), flush=True)


if __name__ == "__main__":
    main()
