"""Attacks of a container on those that join it, and by one that joins on what serves the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.runner import Rl
from tests.support.undefended import DUMPABLE, changed
from tests.support.waiting import PATIENCE, wait_until

SECRET = "the host's own"
SLEEP = ("alpine", "sleep", "1000")
NET_RAW = 13


@contextmanager
def target(rl: Rl, *options: str) -> Iterator[str]:
    """Run a container that others join."""
    rl("run", "-d", "--name", "target", *options, *SLEEP)
    try:
        yield "target"
    finally:
        rl("rm", "-f", "target")


def test_set_up_of_a_joiner_cannot_be_looked_into_by_whom_it_joins(rl: Rl, tmp_path: Path) -> None:
    secret, reached, go_on = (tmp_path / name for name in ("secret", "reached", "go-on"))
    secret.write_text(SECRET)
    # It has not left the host's tree yet, and waits there.
    waiting = f"""
import pathlib, time
from rootless.containers import rootfs
assemble = rootfs.assemble
def wait(*arguments):
    pathlib.Path({str(reached)!r}).touch()
    while not pathlib.Path({str(go_on)!r}).exists():
        time.sleep(0.05)
    assemble(*arguments)
rootfs.assemble = wait
"""
    look = f"for p in /proc/[0-9]*; do cat $p/root{secret} 2>/dev/null; done; true"

    def attack(rl: Rl) -> bool:
        for file in reached, go_on:
            file.unlink(missing_ok=True)
        joining = ("run", "--rm", "--pid", "container:target", "alpine", "true")
        with changed(rl, waiting).start(*joining) as joiner:
            wait_until(reached.exists)
            try:
                found = rl("exec", "--privileged", "target", "sh", "-c", look).stdout
            finally:
                go_on.touch()
            assert joiner.wait(timeout=PATIENCE) == 0
        return SECRET in found

    with target(rl, "--privileged"):
        assert not attack(rl)
        assert attack(changed(rl, DUMPABLE))


def test_joiner_makes_up_no_packets_in_a_network_that_leads_to_the_host(rl: Rl) -> None:
    unaware = """
from rootless.containers import joining
joining._connected = lambda *_: False
"""

    def attack(rl: Rl) -> bool:
        command = ("alpine", "sed", "-n", "s/^CapBnd:[[:space:]]*//p", "/proc/self/status")
        bounding = rl("run", "--rm", "--network", "container:target", *command).stdout
        return bool(int(bounding, 16) >> NET_RAW & 1)

    with target(rl, "--network", "pasta"):
        assert not attack(rl)
        assert attack(changed(rl, unaware))


TAKE_OVER = """
for p in /host/[0-9]*; do
    grep -q '^DIRECTORY.*/slirp4netns' $p/cmdline 2>/dev/null || continue
    ls $p/root/ >/dev/null 2>&1 && echo reached || echo refused
done
"""


@pytest.mark.parametrize("kind", ["network", "uts"])
def test_joiner_that_sees_the_program_that_connects_the_other_cannot_take_it_over(
    rl: Rl, kind: str
) -> None:
    unchecked = """
from rootless.containers import namespaces
namespaces.check_network = lambda *_: None
"""

    def attack(rl: Rl) -> str:
        script = TAKE_OVER.replace("DIRECTORY", str(rl.directory))
        joining = ("--network", "none") if kind == "uts" else ()
        options = (*joining, f"--{kind}", "container:target", "-v", "/proc:/host")
        done = rl("run", "--rm", *options, "alpine", "sh", "-c", script, check=False)
        return done.stdout + done.stderr

    with target(rl, "--network", "slirp4netns"):
        assert "could take slirp4netns over" in attack(rl)
        assert attack(changed(rl, unchecked)) == "reached\n"


READ = """
for p in /host/[0-9]*; do
    [ "$(cat $p/comm 2>/dev/null)" = rl-overlay ] || continue
    [ "$(readlink $p/ns/user)" = "$(readlink /proc/self/ns/user)" ] || continue
    ls $p/fd/ >/dev/null 2>&1 && echo read
done
true
"""


def test_server_of_the_other_cannot_be_read_by_a_joiner_that_sees_it(rl: Rl) -> None:
    # It is in the user namespace that the joiner enters.
    def attack(rl: Rl) -> str:
        options = ("--privileged", "--network", "none", "--uts", "container:target")
        look = ("-v", "/proc:/host", "alpine", "sh", "-c", READ)
        return rl("run", "--rm", *options, *look).stdout

    with target(rl):
        assert attack(rl) == ""
    with target(changed(rl, DUMPABLE)):
        assert attack(rl) == "read\n"


def test_server_of_a_joiner_cannot_be_read_by_whom_it_joins(rl: Rl) -> None:
    together = """
from rootless.containers import idmaps
serving = idmaps.serving
idmaps.serving = lambda container, storage, **_: serving(container, storage)
"""

    def attack(rl: Rl) -> str:
        rl("run", "-d", "--name", "joiner", "--uts", "container:target", *SLEEP)
        found = rl("exec", "--privileged", "target", "sh", "-c", READ).stdout
        rl("rm", "-f", "joiner")
        return found

    with target(rl, "-v", "/proc:/host"):
        assert attack(rl) == ""
        assert attack(changed(rl, DUMPABLE)) == ""
        assert attack(changed(rl, together, DUMPABLE)) == "read\n"
