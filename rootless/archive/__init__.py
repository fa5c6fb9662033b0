"""Trees of files as tar archives, and back: for `rl cp`, `rl export` and new volumes."""
