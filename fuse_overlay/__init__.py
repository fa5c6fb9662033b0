"""fuse-overlay: an overlay file system for FUSE, read-only directories under a copy-on-write one.

`Overlay` (overlay.py) is the file system, `serve` (server.py) shows it to the kernel, `mount` has
what mount(2) needs, `command` is the program. Nothing is imported here, so that importing
`fuse_overlay.mount` stays cheap.
"""

__version__ = "0.1.0"
