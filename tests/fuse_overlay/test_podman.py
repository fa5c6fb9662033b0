"""An unprivileged Podman whose containers lie on our overlay: `overlay.mount_program`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.registry import Registry

Podman = Callable[..., str]

FUSE_OVERLAY = Path(sys.executable).parent / "fuse-overlay"
NETWORK = ("--network", "none")


@pytest.fixture(scope="module")
def podman(registry: Registry) -> Iterator[Podman]:
    # Not in the tests' area: Podman takes no long path for its --runroot.
    directory = Path(tempfile.mkdtemp(prefix="rl-podman-"))
    (directory / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
    )
    (directory / "policy.json").write_text(
        json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
    )
    options: list[str | Path] = [
        "--root", directory / "root", "--runroot", directory / "run", "--runtime", "runc",
        "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay",
        "--storage-opt", f"overlay.mount_program={FUSE_OVERLAY}",
    ]  # fmt: skip
    environment = os.environ | {
        "CONTAINERS_REGISTRIES_CONF": str(directory / "registries.conf"),
        "TMPDIR": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
    }

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            ["podman", *options, *arguments],
            env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    yield run
    # Ends the process that keeps Podman's user namespace.
    run("system", "migrate")
    leaks.remove_tree(directory)


@pytest.fixture(scope="module")
def image(podman: Podman, registry: Registry, alpine: str) -> str:
    name = f"{registry.host}/library/{alpine}"
    podman("pull", "-q", name)
    return name


def test_podman_runs_containers_on_our_mount(podman: Podman, image: str) -> None:
    script = "grep ' / ' /proc/mounts; cat /etc/motd; echo new > /etc/motd; mv /etc /moved; ls /"
    mount, motd, *names = podman("run", "--rm", *NETWORK, image, "sh", "-c", script).splitlines()
    assert mount.split()[2] == "fuse.fuse-overlay"
    assert motd == "hello from busybox"
    assert "moved" in names
    assert podman("run", "--rm", *NETWORK, image, "cat", "/etc/motd") == "hello from busybox\n"


def test_podman_builds_images_on_our_mount(podman: Podman, image: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"""\
        FROM {image}
        RUN mkdir -p /srv/data/sub && echo deep > /srv/data/sub/file && ln -s sub /srv/data/link
        RUN grep ' / ' /proc/mounts > /mounts
        RUN echo built > /built && rm /etc/motd && mv /srv/data /srv/renamed
        RUN chown -R 7:8 /srv/renamed && chmod 2751 /srv/renamed && mkdir /srv/data
        COPY --chown=1000:1000 Containerfile /srv/data/recipe
    """)
    podman("build", "-q", "--isolation", "chroot", "-t", "built", str(tmp_path))
    script = (
        "cat /built /srv/renamed/link/file; cd /srv; ls data;"
        " stat -c '%a %u:%g %n' renamed renamed/sub/file data/recipe;"
        " ls /etc/motd 2>&1; cat /mounts"
    )
    *lines, motd, mount = podman("run", "--rm", *NETWORK, "built", "sh", "-c", script).splitlines()
    assert lines == [
        "built", "deep", "recipe",
        "2751 7:8 renamed", "644 7:8 renamed/sub/file", "644 1000:1000 data/recipe",
    ]  # fmt: skip
    assert "No such file" in motd
    assert mount.split()[2] == "fuse.fuse-overlay"


def test_podman_commits_what_a_container_changed(podman: Podman, image: str) -> None:
    change = "echo more >> /etc/motd; rm /etc/group; mkdir /d; ln /etc/motd /d/l; mv /root /home2"
    again = "test -f /d/l && test -d /home2 && ! test -e /etc/group"
    script = f"if [ -d /d ]; then {again}; else {change}; fi"
    podman("run", "--name", "changed", *NETWORK, image, "sh", "-c", script)
    changes = podman("diff", "changed").splitlines()
    assert {"C /etc/motd", "D /etc/group", "A /d/l", "D /root", "A /home2"} <= set(changes)
    podman("commit", "-q", "changed", "committed")
    podman("start", "--attach", "changed")
    podman("rm", "changed")
    script = "cat /d/l; stat -c %h /d/l; ls -d /home2; ls /etc/group /root 2>&1"
    lines = podman("run", "--rm", *NETWORK, "committed", "sh", "-c", script + "; true").splitlines()
    assert lines[:4] == ["hello from busybox", "more", "2", "/home2"]
    assert [line.endswith("No such file or directory") for line in lines[4:]] == [True, True]
