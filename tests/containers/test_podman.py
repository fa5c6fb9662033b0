"""Images that Podman built and pushed, and the same layers as Podman sees them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.registry import Registry
from tests.support.runner import Rl

# Prints a line for each file: type, mode, owner, links, size, time, name, link target.
LISTING = (
    "find /usr /etc /opt /var /bin /sbin /root -xdev "
    "! -path /etc ! -path '/etc/host*' ! -path /etc/resolv.conf ! -path /etc/mtab "
    r"-printf '%y %m %U:%G %n %T@ %p %l ' \( -type f -printf '%s\n' -o -printf '\n' \) | sort"
)


class Podman:
    """Podman with a store of its own."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self.directory = directory
        self._options = [
            "--root", str(directory / "root"), "--runroot", str(directory / "run"),
            "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay",
        ]  # fmt: skip
        (directory / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        )
        (directory / "policy.json").write_text(
            json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
        )

    def __call__(self, *arguments: str) -> str:
        environment = os.environ | {
            "CONTAINERS_REGISTRIES_CONF": str(self.directory / "registries.conf"),
            "TMPDIR": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory),
        }
        done = subprocess.run(
            ["podman", *self._options, *arguments],
            env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def podman(registry: Registry) -> Iterator[Podman]:
    # Not in the tests' area: Podman takes no long path for its --runroot.
    directory = Path(tempfile.mkdtemp(prefix="rl-podman-"))
    podman = Podman(directory, registry)
    yield podman
    # Ends the process that keeps Podman's user namespace.
    podman("system", "migrate")
    leaks.remove_tree(directory)


def test_image_built_and_pushed_by_podman_runs(
    rl: Rl, alpine: str, podman: Podman, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "Containerfile").write_text(f"""\
        FROM {registry.host}/library/alpine
        RUN echo built > /built && rm /etc/motd && mkdir -p /srv/data && chown 1000:1000 /srv/data
        COPY --chown=1000:1000 Containerfile /srv/data/recipe
        ENV GREETING="hello there"
        WORKDIR /srv/data
        USER 1000:1000
        VOLUME /volume
        ENTRYPOINT ["sh", "-c"]
        CMD ["echo $GREETING; pwd; id -u; ls /etc/motd; stat -c '%u %n' *; cat /built"]
    """)
    name = f"{registry.host}/tests/built"
    podman("build", "-q", "--isolation", "chroot", "-t", name, str(tmp_path))
    podman("push", "-q", name)
    done = rl("run", "--rm", "-q", name, check=False)
    assert done.stdout == "hello there\n/srv/data\n1000\n1000 recipe\nbuilt\n"
    assert "/etc/motd: No such file" in done.stderr
    inside = rl("run", "--rm", name, "test -d /volume && stat -c %u /volume").stdout
    assert inside == "0\n"


def test_debian_is_the_same_tree_as_under_podman(
    rl: Rl, debian: str, podman: Podman, registry: Registry
) -> None:
    rl("pull", "-q", debian)
    ours = rl("run", "--rm", "debian", "sh", "-c", LISTING).stdout.splitlines()
    name = f"{registry.host}/library/debian"
    theirs = podman("run", "--rm", "--network", "none", name, "sh", "-c", LISTING).splitlines()
    assert len(ours) > 5000
    assert "\n".join(sorted(set(ours) ^ set(theirs))) == ""


def test_debian_has_the_same_contents_and_attributes_as_under_podman(
    rl: Rl, debian: str, podman: Podman, registry: Registry
) -> None:
    rl("pull", "-q", debian)
    script = """
        import os, hashlib
        for path, dirs, files in os.walk("/usr"):
            for name in sorted(dirs + files):
                file = os.path.join(path, name)
                found = [(x, os.getxattr(file, x, follow_symlinks=False))
                         for x in os.listxattr(file, follow_symlinks=False)]
                plain = os.path.isfile(file) and not os.path.islink(file)
                data = open(file, "rb").read() if plain else b""
                if found or data:
                    print(file, found, hashlib.md5(data).hexdigest())
    """
    code = "\n".join(line[8:] for line in script.splitlines())
    ours = rl("run", "--rm", "debian", "python3", "-c", code).stdout
    name = f"{registry.host}/library/debian"
    theirs = podman("run", "--rm", "--network", "none", name, "python3", "-c", code)
    assert sorted(set(ours.splitlines()) ^ set(theirs.splitlines())) == []
    assert len(ours.splitlines()) > 4000
