"""Where log lines go, and what they look like."""

from __future__ import annotations

import logging
import os
import sys


def configure_logging(role: str, level: str) -> None:
    """Log to standard error, each line with the process's role."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format=f"%(asctime)s %(levelname)-7s {role}[{os.getpid()}] %(message)s"
    )
    logging.captureWarnings(True)
