"""scripts/quickstart does the main job, with a registry and without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.registry import Registry
from tests.support.runner import Rl

CHECKOUT = Path(__file__).parents[2]


def quickstart(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [CHECKOUT / "scripts/quickstart"],
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def shows_a_container(output: str) -> bool:
    """Tell whether the output is that of a root, a process table and a file system of its own."""
    return all(
        sign in output
        for sign in (
            "BusyBox of the host",
            "uid=0(root) gid=0(root)",
            "    1 root     ps\n",
            "fuse-overlay",
        )
    )


def plain_user(rl: Rl) -> dict[str, str]:
    """Return the environment of a user who has nothing yet but a cache of downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    network = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {**network, **rl.environment, "XDG_CACHE_HOME": cache}


@pytest.mark.slow
def test_a_plain_user_sees_a_container_from_the_registry_or_else_from_the_host(
    fresh_rl: Rl, registry: Registry
) -> None:
    done = quickstart(plain_user(fresh_rl))
    assert "$ rl run --rm alpine ps\n" in done.stdout
    assert shows_a_container(done.stdout), done.stdout
    assert "no registry" not in done.stderr
    assert done.stdout.endswith("in your store; go on with:\n    scripts/as-user rl images\n")

    fresh_rl("rmi", "alpine")
    # Nothing listens on port 1.
    (fresh_rl.directory / "registries.conf").write_text(
        '[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:1"\ninsecure = true\n'
    )
    done = quickstart(plain_user(fresh_rl))
    assert "$ rl run --rm localhost/busybox:latest ps\n" in done.stdout
    assert shows_a_container(done.stdout), done.stdout
    assert "no registry can be reached" in done.stderr


@pytest.mark.root
def test_root_sees_a_container_of_the_test_user_where_no_registry_can_be_reached() -> None:
    def as_user(*command: str) -> str:
        done = subprocess.run(
            [CHECKOUT / "scripts/as-user", *command], check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    store = as_user("mktemp", "-d")
    try:
        proxy = "http://127.0.0.1:1"
        done = quickstart(
            {**os.environ, "RL_ROOT": store, "https_proxy": proxy, "HTTPS_PROXY": proxy}
        )
        assert shows_a_container(done.stdout), done.stdout
        assert "no registry can be reached" in done.stderr
        assert "store of the user rl-test" in done.stdout
        assert done.stdout.endswith(":\n    scripts/as-user rl images\n")
    finally:
        script = "import sys; from tests.support.leaks import *; remove_tree(Path(sys.argv[1]))"
        as_user("python", "-c", script, store)
