"""Control groups, version 2, as far as they are delegated to a user: limits, usage, freezing."""
