"""Ways out of a container that others have found, tried on ours."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.undefended import changed
from tests.support.waiting import PATIENCE

# Tries to change the file of the process that it runs in, in every way there is.
ATTACK = """
import os, sys
me = "/proc/self/exe"
ways = {
    "chmod": lambda: os.chmod(me, 0o4777),
    "chown": lambda: os.chown(me, 1, 1),
    "utime": lambda: os.utime(me, (1, 1)),
    "setxattr": lambda: os.setxattr(me, "user.attack", b"1"),
    "write": lambda: os.open(me, os.O_WRONLY),
}
for name, way in ways.items():
    try:
        way()
        print(name, "done")
    except OSError as error:
        print(name, error.errno)
"""


def identity(file: Path) -> tuple[object, ...]:
    """Return all that may not change of a file."""
    found = file.stat()
    attributes = (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_ctime_ns)
    return (*attributes, file.read_bytes())


@pytest.mark.parametrize(
    "command",
    [
        ("--entrypoint", "/proc/self/exe", "debian", "-c", ATTACK),
        ("-v", "SCRIPT:/script:ro", "debian", "/script"),
    ],
    ids=["as the command", "as a script's interpreter"],
)
def test_interpreter_of_ours_cannot_be_changed_from_inside(
    rl: Rl, debian: str, own_python: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    rl("pull", "-q", debian)
    script = tmp_path / "script"
    script.write_text(f"#!/proc/self/exe\n{ATTACK}")
    script.chmod(0o755)
    arguments = [argument.replace("SCRIPT", str(script)) for argument in command]
    before = identity(own_python)
    done = subprocess.run(
        [str(own_python), "-m", "rootless", "run", "--rm", *arguments],
        env={
            **rl.environment,
            "PYTHONHOME": sysconfig.get_config_var("installed_base"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        check=False, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    # EROFS; and ETXTBSY for a program that runs.
    assert done.stdout.split("\n")[:5] == (
        ["chmod 30", "chown 30", "utime 30", "setxattr 30", "write 26"]
    ), done.stderr
    assert identity(own_python) == before
    missing = "from rootless.containers import interpreter\n"
    missing += "interpreter.is_changeable = lambda *_: False"
    done = changed(rl, missing, python=own_python)("run", "--rm", *arguments)
    assert done.stdout.split("\n")[:5] == (
        ["chmod done", "chown done", "utime done", "setxattr done", "write 26"]
    )
    assert identity(own_python) != before


def test_working_directory_through_a_descriptor_of_ours_leads_nowhere(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    # CVE-2024-21626: a directory descriptor of the host that the runtime left open.
    for number in range(3, 16):
        done = rl("run", "--rm", "-w", f"/proc/self/fd/{number}", "alpine", "pwd", check=False)
        assert done.returncode == 125, done.stdout
    images.busybox(tmp_path, {"f": ""}, {"WorkingDir": "/proc/self/cwd"})
    registry.push(f"oci:{tmp_path}:latest", "tests/cwd")
    name = f"{registry.host}/tests/cwd"
    rl("pull", "-q", name)

    def attack(rl: Rl) -> bool:
        return rl("run", "--rm", name, "ls", check=False).returncode == 0

    assert not attack(rl)
    by_path = """
import os
from rootless.containers import command
from rootless.kernel import mounts
command.enter_directory = lambda root, path: os.chdir(path)
make_directories = mounts.make_directories
mounts.make_directories = lambda root, path, *mode: (
    os.dup(root) if path.startswith("/proc/self/") else make_directories(root, path, *mode))
"""
    assert attack(changed(rl, by_path))
