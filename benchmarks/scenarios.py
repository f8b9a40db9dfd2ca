"""Every scenario's demo, run to its end over HTTP: how well it is answered at the start, in the middle and at the end of its
stream, beside the plain baseline on the same stream."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCENARIOS = (
    "sentiment",
    "tags",
    "translation",
    "summary",
    "behaviour",
    "recommend",
    "products",
    "prices",
    "recognition",
    "detection",
)
PARTS = ("start", "middle", "end", "all")


def figures(name: str) -> dict[str, Any]:
    """Return the report of a demo."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        files = ["--report", str(report), "--plot", str(Path(folder) / "plot.png")]
        command = [sys.executable, "-m", "service.cli", "demo", name, "--once", "--port", "0", *files]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(report.read_text())
    return found


def rows(name: str, found: dict[str, Any]) -> list[str]:
    """Return a line of the table for everlearn, and one for each baseline."""
    learners = [each for each, told in found.items() if isinstance(told, dict) and told.keys() == {*PARTS}]
    served = found["feedback_to_served_ms"]["p50"]
    lines = []
    for learner in learners:
        values = " | ".join(f"{found[learner][part]:.3f}" for part in PARTS)
        own = f"{found['versions']} | {served} ms" if learner == "everlearn" else "- | -"
        lines.append(f"| {name} | {found['items']} | {found['metric']} | {learner} | {values} | {own} |")
    return lines


def main() -> None:
    """Run what is asked for; by default every scenario."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS)
    print("| scenario | items | metric | learner | start | middle | end | all | versions | feedback to served, p50 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in parser.parse_args().scenarios:
        print("\n".join(rows(name, figures(name))), flush=True)


if __name__ == "__main__":
    main()
