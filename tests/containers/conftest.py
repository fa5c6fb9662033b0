"""Fixtures of the tests of containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.attack import SECRET


@pytest.fixture
def own_python(tmp_path: Path) -> Iterator[Path]:
    """Return an interpreter that belongs to us, as those of pyenv, conda and uv do."""
    copy = tmp_path / "bin" / "python3"
    copy.parent.mkdir()
    shutil.copy2(os.path.realpath(sys.executable), copy)
    yield copy
    subprocess.run(["setfattr", "-x", "user.attack", copy], check=False, capture_output=True)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a directory of the host that no container was given, with a secret in it."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "secret").write_text(SECRET)
    return directory
