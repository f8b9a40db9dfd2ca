"""The processes of `everlearn serve`: a light supervisor, the learner, and the API workers."""

EXIT_CONFIG = 78
"""Exit status of a child for which starting again would not help (EX_CONFIG of sysexits.h)."""
