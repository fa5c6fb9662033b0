"""Images of services: a layer and a configuration on the image of Debian, which has the programs.

Used by tests of what people run for long.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.support.oci import Layer, derive_layout, tar_of

_SECOND = 10**9


def nginx(base: Path, directory: Path) -> None:
    """Write an image of nginx as the official one is: logs on its streams, SIGQUIT stops it."""
    check = "import urllib.request as u; u.urlopen('http://localhost')"
    files: dict[str, tarfile.TarInfo] = {}
    for name, stream in ("access", "stdout"), ("error", "stderr"):
        link = files[name] = tarfile.TarInfo(f"var/log/nginx/{name}.log")
        link.type, link.linkname = tarfile.SYMTYPE, f"/dev/{stream}"
    config = {
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "python3", "-c", check], "Interval": _SECOND},
        "StopSignal": "SIGQUIT",
    }
    derive_layout(base, directory, Layer(tar_of(files)), config)


def redis(base: Path, directory: Path) -> None:
    """Write an image of Redis that runs as its own user and keeps its data in a volume."""
    data = "/var/lib/redis"
    config = {
        "Cmd": ["redis-server", "--protected-mode", "no", "--appendonly", "yes", "--dir", data],
        "ExposedPorts": {"6379/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "redis-cli", "ping"], "Interval": _SECOND},
        "User": "redis",
        "Volumes": {data: {}},
        "WorkingDir": data,
    }
    derive_layout(base, directory, Layer(tar_of({"etc/motd": "redis\n"})), config)
