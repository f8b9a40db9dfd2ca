"""The command line. Heavy imports stay inside the commands: `everlearn --help` must not wait for torch."""

from __future__ import annotations

import os
import sys

from service.cli import access, calling, checking, keeping, learning, serving, turning
from service.cli.application import app
from service.cli.serving import Template

__all__ = ["Template", "access", "app", "calling", "checking", "keeping", "learning", "main", "serving", "turning"]


def main() -> None:
    """Run the command line."""
    # A model of the user's own is imported by name from where the command runs, as `python -m` would.
    sys.path.insert(0, os.getcwd())
    app()
