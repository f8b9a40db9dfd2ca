"""Pure learning: (state, items) -> state, metrics. No HTTP, no storage; usable in a notebook."""
