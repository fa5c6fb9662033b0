"""`python -m fuse_overlay` is the command `fuse-overlay`."""

from fuse_overlay.command import main

main()
