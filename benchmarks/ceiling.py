"""What everlearn's work costs a prediction: /predict of a learned MLP 64-128-10 beside a bare server of the same model.

    python -m benchmarks.ceiling [--rounds N] [--seconds S]

The bare server validates, journals, counts and learns nothing. Each server has core 0 to itself while it is measured, wrk has
core 1; everlearn runs as it comes, journal, ids, metrics, validation and learner on.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter

from benchmarks.load import closed
from benchmarks.rounds import Row, interleaved, options
from benchmarks.servers import LOAD, bare, learned, question


def main() -> None:
    given = options(__doc__, rounds=5, seconds=5)
    with learned() as service, bare("--frozen") as url:
        for connections in (1, 32):
            load = partial(closed, body=question(), connections=connections, seconds=given.seconds, core=LOAD)
            rounds = interleaved(
                {"everlearn": partial(load, f"{service.url}/predict"), "bare": partial(load, f"{url}/predict")}, given.rounds
            )
            rate, p50, p99 = (rounds.medians(attrgetter(name)) for name in ("rate", "p50", "p99"))
            said = ", ".join(f"{s} {rate[s]:.0f}/s p50 {p50[s]:.2f} ms p99 {p99[s]:.2f} ms" for s in rounds.sides)
            if connections == 1:
                ratio = rounds.ratio("everlearn", "bare", attrgetter("p50"))
                row = Row(1, "/predict, MLP, 1 connection, p50", "bare", "at most 1.3x", f"{ratio}", ratio.median <= 1.3, said)
            else:
                ratio = rounds.ratio("everlearn", "bare", attrgetter("rate"))
                row = Row(2, "/predict, MLP, 32 connections", "bare", "at least 1.0x", f"{ratio}", ratio.median >= 1.0, said)
            row.write()
            print(said)


if __name__ == "__main__":
    main()
