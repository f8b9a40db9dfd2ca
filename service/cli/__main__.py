"""`python -m service.cli`: the same as `everlearn`."""

from service.cli import main

main()
