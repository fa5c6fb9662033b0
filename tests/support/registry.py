"""A real registry on loopback: Debian's docker-registry, in a directory of its own.

Owns the server's process, its configuration and its log. Used by the fixture ``registry`` and
by tests that need a registry which they may stop or break.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/[0-9.]+" (\d+) ')


@dataclass(frozen=True)
class Registry:
    """A running registry; ``host`` is its HOST:PORT, plain HTTP, anyone may push and delete."""

    host: str
    directory: Path
    log: Path

    def push(self, source: str, name: str) -> None:
        """Copy an image (``oci:DIR:TAG``, ``docker-archive:FILE`` …) here as ``name[:tag]``."""
        options = ["--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run(
            ["skopeo", "copy", "-q", *options, source, f"docker://{self.host}/{name}"],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def requests(self) -> list[str]:
        """Return what was asked so far: ``GET /v2/library/alpine/manifests/latest 200`` …"""
        # A request is logged after it is answered. The registry logs one at a time, so that when
        # our own is there, those answered before are there too.
        mark = f"/v2/?mark={time.monotonic_ns()}"
        _get(f"http://{self.host}{mark}")
        while mark not in (text := self.log.read_text(errors="replace")):
            time.sleep(0.01)
        return [
            " ".join(match.groups())
            for match in _REQUEST.finditer(text)
            if "/v2/?mark=" not in match[2]
        ]


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[Registry]:
    """Serve the images under ``directory`` (made when absent) until the context is left."""
    directory.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    configuration = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": host},
    }
    # JSON is YAML.
    (directory / "config.yml").write_text(json.dumps(configuration))
    log = directory / "log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
    try:
        _wait_until_it_answers(server, host, log)
        yield Registry(host, directory, log)
    finally:
        server.terminate()
        server.wait()


def _wait_until_it_answers(server: subprocess.Popen[bytes], host: str, log: Path) -> None:
    for _ in range(3000):
        with contextlib.suppress(OSError):
            return _get(f"http://{host}/v2/")
        if server.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"docker-registry does not answer on {host}: {log.read_text()}")


def _get(url: str) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10) as response:
        response.read()
