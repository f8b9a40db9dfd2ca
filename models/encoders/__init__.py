"""Encoders, one file each; `models.registry` knows them by name."""
