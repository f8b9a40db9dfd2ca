"""Measure rows of RESULTS.md, all or those of the scripts that are named, and write it: python -m benchmarks [SCRIPT ...]"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks import report
from benchmarks.report import Question, parts, questions


def measured(rows: list[Question]) -> bool:
    """Run the script of some rows; return whether it came to its end. What it found before is thrown away."""
    for row in rows:
        for path in parts(row):
            path.unlink()
    command = [sys.executable, "-m", f"benchmarks.{rows[0].script}", *rows[0].arguments]
    print(f"== {' '.join(command[2:])}", flush=True)
    return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    rows = questions()
    scripts = list(dict.fromkeys(row.script for row in rows))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(scripts)}")
    wanted = parser.parse_args().scripts or scripts
    if unknown := set(wanted) - set(scripts):
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    failed = [script for script in wanted if not measured([row for row in rows if row.script == script])]
    report.main()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
