"""One script per figure that the README quotes. Each prints what it measured; none asserts anything."""
