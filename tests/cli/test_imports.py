"""What commands load: each module is waited for at every start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.runner import Rl

# Slow to load, or of features that these commands do not use.
HEAVY = {
    "asyncio", "concurrent", "copy", "dataclasses", "dns", "hashlib", "html", "http", "httpx",
    "jeepney", "logging", "multiprocessing", "pyfuse3", "pyroute2", "random", "rich", "shutil",
    "ssl", "subprocess", "tarfile", "tempfile", "traceback", "trio", "zstandard",
}  # fmt: skip


@pytest.fixture(scope="module")
def running(rl: Rl) -> Iterator[str]:
    name = "imported"
    rl("run", "-d", "--name", name, "--network", "none", "alpine", "sleep", "1000")
    yield name
    rl("rm", "-f", name)


def loaded(rl: Rl, *arguments: str) -> set[str]:
    """Return the modules that all processes of a command import until they leave its stderr."""
    said = rl(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr
    lines = [line for line in said.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def heavy(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in HEAVY}


@pytest.mark.usefixtures("running")  # the image is there
@pytest.mark.parametrize("network", ["none", "private"])
def test_a_start_loads_nothing_heavy(rl: Rl, network: str) -> None:
    modules = loaded(rl, "run", "--rm", "--network", network, "alpine", "true")
    assert modules >= {"click", "rootless.containers.supervisor", "fuse_overlay.connection"}
    assert not heavy(modules)


def test_exec_loads_nothing_heavy(rl: Rl, running: str) -> None:
    modules = loaded(rl, "exec", running, "true")
    assert "rootless.containers.enter" in modules
    assert not heavy(modules)


def test_ps_loads_nothing_heavy(rl: Rl, running: str) -> None:
    modules = loaded(rl, "ps", "-a")
    assert "rootless.containers.store" in modules
    assert not heavy(modules)
    assert not modules & {"ctypes", "rootless.containers.request", "rootless.cli.template.parse"}


@pytest.mark.parametrize("command", ["run", "exec", "ps", "pull"])
def test_help_loads_nothing_heavy(rl: Rl, command: str) -> None:
    modules = loaded(rl, command, "--help")
    assert "click" in modules
    # click asks shutil how wide the terminal is.
    assert heavy(modules) <= {"shutil"}
