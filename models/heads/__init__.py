"""Heads, one file each; a head *is* the task. `models.registry` knows them by name."""
