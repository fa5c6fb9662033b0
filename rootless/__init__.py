"""Rootless containers: images, containers and the kernel's interfaces behind the command `rl`.

Owns the version. Imports nothing, so that every command starts fast.
"""

__version__ = "0.1.0"
