"""A real registry on loopback: Debian's docker-registry, in a directory of its own.

Owns the server's process, its configuration and its log. Used by the fixture ``registry`` and
by tests that need a registry which they may stop or break.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import PATIENCE, wait_until

_LISTENING = re.compile(rb"listening on (127\.0\.0\.1:\d+)")
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
        wait_until(lambda: f'"GET {mark} ' in self.log.read_text(errors="replace"))
        return [
            " ".join(match.groups())
            for match in _REQUEST.finditer(self.log.read_text(errors="replace"))
            if "/v2/?mark=" not in match[2]
        ]


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[Registry]:
    """Serve the images under ``directory`` (made when absent) until the context is left."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = {
        "version": 0.1,
        # So it says which port it has got.
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": "127.0.0.1:0"},
    }
    # JSON is YAML.
    (directory / "config.yml").write_text(json.dumps(configuration))
    log = directory / "log"
    with log.open("ab") as output:
        before = output.tell()
        server = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
    try:
        yield Registry(_address(server, log, before), directory, log)
    finally:
        server.terminate()
        server.wait()


def _address(server: subprocess.Popen[bytes], log: Path, before: int) -> str:
    """Return the HOST:PORT that a server listens on, which its log tells after byte ``before``."""

    def said() -> re.Match[bytes] | None:
        assert server.poll() is None, f"docker-registry ended: {log.read_text()}"
        return _LISTENING.search(log.read_bytes(), before)

    wait_until(said)
    found = said()
    assert found is not None
    return found[1].decode()


def _get(url: str) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=PATIENCE) as response:
        response.read()
