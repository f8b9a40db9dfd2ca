"""The Python in docs/, executed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.running import ROOT

EXAMPLES = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_it_stands(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    assert capsys.readouterr().out.strip()


def test_the_notebook_example_learns() -> None:
    names: dict[str, Any] = {}
    (example,) = (each.values[0] for each in EXAMPLES if each.id == "learning.md-0")
    exec(example, names)  # type: ignore[arg-type]
    assert names["state"].metrics()["accuracy"] > 0.85
