"""Begins and ends what the tests of the overlay share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse_overlay.made import Made
from tests.fuse_overlay.support import MOUNT_OPTIONS, close_user_namespace


@pytest.fixture(scope="session", autouse=True)
def user_namespace() -> Iterator[None]:
    """Let the user namespace that tests ran in go at the end."""
    yield
    close_user_namespace()


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Give the process its umask back, which an Overlay takes."""
    before = os.umask(0o22)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(params=["", "server=pyfuse3"], ids=["own", "pyfuse3"])
def either_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a test with our own loop and with pyfuse3."""
    monkeypatch.setenv(MOUNT_OPTIONS, request.param)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)
