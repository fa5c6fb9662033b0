"""Fixtures of all tests: a registry, images in it, the command, and a look for leaks at the end.

They are session-wide and lazy: what no test asks for is not made.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import settings

from tests.support import images, leaks
from tests.support.registry import Registry, serve
from tests.support.runner import Rl

# No test depends on time, and the tree that holds the tests cannot be written.
settings.register_profile("rl", deadline=None, database=None, derandomize="CI" in os.environ)
settings.load_profile("rl")


# Ignored where a shell started us in the background; what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST_TEST = 1200
"""Seconds after which a test counts as hung: some make a Debian from a mirror that may be slow."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Fail a test that hangs. By a signal: a watching thread would be lost in what we fork."""

    def hung(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test hangs: it took more than {LONGEST_TEST} seconds")

    signal.signal(signal.SIGALRM, hung)
    try:
        return (yield)
    finally:
        signal.alarm(0)


_stores: list[Rl] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Take back what a test made that fails, so that no other fails for that."""
    known = [(rl, rl.things()) for rl in _stores]
    try:
        return (yield)
    except (Exception, pytest.fail.Exception):
        for rl, things in known:
            with suppress(subprocess.TimeoutExpired):
                rl.remove_all_but(things)
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin to count: also for a test that is run once more."""
    signal.alarm(LONGEST_TEST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give root the tests that only root can run, and everyone else the others."""
    for_root = os.geteuid() == 0
    mine = [item for item in items if (item.get_closest_marker("root") is not None) == for_root]
    if len(mine) != len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = mine


@pytest.fixture(scope="session")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with a unique name; at the end no process and no mount may know it."""
    base = tmp_path_factory.mktemp("session")
    directory = Path(tempfile.mkdtemp(prefix="rl-tests-", dir=base))
    yield directory
    left = leaks.wait_for_none(directory)
    leaks.remove_tree(directory)
    assert not left, "the tests left behind: " + "; ".join(left)


@pytest.fixture(scope="session")
def registry(area: Path) -> Iterator[Registry]:
    """Return a registry on loopback; ``rl`` reaches it as docker.io, through a mirror."""
    with serve(area / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def alpine(area: Path, registry: Registry) -> str:
    """Return the name of a small image: static busybox, a few users, two layers, `sh`."""
    layout = area / "busybox"
    images.busybox(layout)
    registry.push(f"oci:{layout}:latest", "library/alpine")
    return "alpine"


@pytest.fixture(scope="session")
def debian_layout() -> Path:
    """Return the layout of the Debian image; made in a minute if the cache has none."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return images.debian(Path(os.environ.get("RL_TEST_CACHE") or Path(home) / "rl-tests"))


@pytest.fixture(scope="session")
def debian(debian_layout: Path, registry: Registry) -> str:
    """Return the name of a Debian image with apt, Perl and Python, three layers."""
    registry.push(f"oci:{debian_layout}:latest", "library/debian")
    return "debian"


@pytest.fixture(scope="session")
def make_rl(area: Path, registry: Registry) -> Iterator[Callable[[], Rl]]:
    """Return a function that makes an ``Rl`` with an empty store, looked through at the end."""

    def make() -> Rl:
        rl = Rl(Path(tempfile.mkdtemp(prefix="rl-", dir=area)), registry.host)
        rl.prepare()
        _stores.append(rl)
        return rl

    yield make
    made = list(_stores)
    _stores.clear()
    left = [line for rl in made for line in rl.leftovers()]
    for rl in made:
        leaks.remove_tree(rl.directory)
    assert not left, "the tests left behind: " + "; ".join(left)


@pytest.fixture(scope="session")
def rl(make_rl: Callable[[], Rl], alpine: str) -> Rl:
    """Return the command with the store that the tests share; tests remove their containers."""
    return make_rl()


@pytest.fixture
def fresh_rl(make_rl: Callable[[], Rl], alpine: str) -> Rl:
    """Return the command with an empty store of the test's own."""
    return make_rl()
