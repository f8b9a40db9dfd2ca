"""Serving: requests become batches, one thread computes them, new versions come in between two."""
