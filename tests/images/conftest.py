"""Fixtures of the tests of images."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.images import answers
from rootless.images.store import ImageStore
from rootless.kernel import userns
from rootless.trees import remove_tree
from tests.images import fake
from tests.images.place import Place
from tests.images.pulling import Lying


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and reach loopback without a proxy."""
    monkeypatch.setattr(answers, "FIRST_WAIT", 0.001)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file with a key and a self-signed certificate for 127.0.0.1."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout {file} -out {file}.crt",
        shell=True,
        check=True,
        capture_output=True,
    )
    with file.open("ab") as both:
        both.write(Path(f"{file}.crt").read_bytes())
    return str(file)


@pytest.fixture
def dead() -> Iterator[str]:
    """Return a host where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def lying(tmp_path: Path) -> Iterator[Lying]:
    behaviour = Lying(tmp_path / "lying")
    with fake.serve(behaviour) as server:
        behaviour.host = server.host
        yield behaviour


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    yield ImageStore(tmp_path / "root")
    userns.call(remove_tree, tmp_path / "root")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "base")
    yield place
    userns.call(remove_tree, place.store)
