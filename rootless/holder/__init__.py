"""rl-holder: what containers of one store share, held by one process for as long as any uses it."""
