"""Attacks on a container's walls: each fails, and succeeds where the defence it names is off."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.attack import IMPORTS, SECRET, said
from tests.support.runner import Rl
from tests.support.undefended import changed


@pytest.fixture
def service(rl: Rl) -> Iterator[str]:
    """Return the name of a container that runs, whose root may do all that there is to do."""
    name = f"service-{os.urandom(4).hex()}"
    options = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")
    rl("run", "-d", "--name", name, *options, "alpine", "sleep", "100000")
    yield name
    rl("rm", "-f", name)


def keeping(fd: int) -> str:
    """Return the change that a descriptor is not closed on the way into the container."""
    return (
        f"{IMPORTS}close_all_but = process.close_all_but\n"
        f"process.close_all_but = lambda keep: close_all_but([*keep, {fd}])"
    )


# Descriptors


@pytest.mark.parametrize("entry", ["run", "exec"])
def test_descriptor_of_the_host_leads_no_container_to_a_file(
    rl: Rl, service: str, host: Path, entry: str
) -> None:
    into = ("run", "--rm", "alpine") if entry == "run" else ("exec", service)
    fd = os.open(host / "secret", os.O_RDONLY)

    def attack(rl: Rl) -> bool:
        os.lseek(fd, 0, os.SEEK_SET)
        return SECRET in said(rl, *into, "cat", f"/proc/self/fd/{fd}", fd=fd)

    assert not attack(rl)
    assert attack(changed(rl, keeping(fd)))
    os.close(fd)


@pytest.mark.parametrize("entry", ["run", "exec"])
def test_working_directory_is_none_of_the_hosts(
    rl: Rl, service: str, host: Path, entry: str
) -> None:
    # CVE-2024-21626: a descriptor that the runtime had open was a way into the host's tree.
    fd = os.open(host, os.O_RDONLY)
    directory = f"/proc/self/fd/{fd}"
    into = ["run", "--rm", "-w", directory, "alpine"]
    path = """
command.enter_directory = lambda root, path: os.chdir(path)
make_directories = mounts.make_directories
mounts.make_directories = lambda root, path, *mode: (
    os.dup(root) if path.startswith("/proc/self/fd/") else make_directories(root, path, *mode))
"""
    if entry == "exec":
        into = ["exec", "-w", directory, service]
        path = "command.enter_directory = lambda root, path: os.chdir(path)"

    def attack(rl: Rl) -> bool:
        return SECRET in said(rl, *into, "cat", "secret", fd=fd)

    assert not attack(rl)
    # There are two walls, and each holds alone.
    assert not attack(changed(rl, keeping(fd)))
    assert not attack(changed(rl, IMPORTS + path))
    assert attack(changed(rl, keeping(fd), path))
    os.close(fd)


def test_working_directory_that_another_container_exchanges_is_none_of_the_hosts(
    rl: Rl, host: Path, tmp_path: Path
) -> None:
    # It is a link to the descriptor of a bind's source once it has been found to be a directory.
    volume, source = tmp_path / "volume", host / "given"
    source.mkdir()
    into = ["run", "--rm", "-v", f"{volume}:/vol", "-v", f"{source}:/given", "-w", "/vol/work"]
    exchanging = f"""{IMPORTS}
resolve_user, open_sources = command.resolve_user, rootfs.open_sources
sources = {{}}
def remember(*arguments):
    sources.update(open_sources(*arguments))
    return sources
def exchange(*arguments):
    os.rename({str(volume / "work")!r}, {str(volume / "moved")!r})
    os.symlink(f"/proc/self/fd/{{sources['/given']}}", {str(volume / "work")!r})
    return resolve_user(*arguments)
rootfs.open_sources, command.resolve_user = remember, exchange
"""
    keeping_sources = """
close_all_but = process.close_all_but
process.close_all_but = lambda keep: close_all_but([*keep, *sources.values()])
"""
    by_path = "command.enter_directory = lambda root, path: os.chdir(path)"

    def attack(rl: Rl) -> bool:
        shutil.rmtree(volume, ignore_errors=True)
        (volume / "work").mkdir(parents=True)
        return SECRET in said(rl, *into, "alpine", "cat", "../secret")

    raced = changed(rl, exchanging)
    # There are two walls, and each holds alone.
    assert not attack(raced)
    assert not attack(changed(raced, keeping_sources))
    assert not attack(changed(raced, by_path))
    assert attack(changed(raced, keeping_sources, by_path))


# What is inherited


@pytest.mark.parametrize("entry", ["run", "exec"])
def test_environment_of_the_host_stays_outside(rl: Rl, service: str, entry: str) -> None:
    into = ("run", "--rm", "alpine") if entry == "run" else ("exec", service)
    command = ("sh", "-c", "env; tr '\\0' '\\n' < /proc/self/environ")
    told = changed(rl, f"import os; os.environ['TOKEN'] = '{SECRET}'")
    merged = f"""{IMPORTS}
execute = command.execute
def with_ours(settings, *rest):
    settings["env"] += [f"{{name}}={{value}}" for name, value in os.environ.items()]
    execute(settings, *rest)
command.execute = with_ours
"""
    assert SECRET not in said(told, *into, *command)
    assert SECRET in said(changed(told, merged), *into, *command)


# Makes a session keyring with a secret in it, as a login does.
LOGIN = f"""
import ctypes
from rootless.kernel import syscalls
syscalls.join_new_session_keyring()
add_key = 248 if syscalls._X86_64 else 217
secret = {SECRET.encode()!r}
assert ctypes.CDLL(None).syscall(add_key, b"user", b"ticket", secret, len(secret), -3) > 0
"""
SEARCH = """
import ctypes, os
libc = ctypes.CDLL(None)
keyctl = 250 if os.uname().machine == "x86_64" else 219
for ring in (-3, -4, -5):
    key = libc.syscall(keyctl, 10, ring, b"user", b"ticket", 0)
    if key > 0:
        found = ctypes.create_string_buffer(100)
        libc.syscall(keyctl, 11, key, found, 100)
        print(found.value.decode())
"""


@pytest.mark.parametrize("entry", ["run", "exec"])
def test_session_keyring_of_the_user_stays_outside(rl: Rl, debian: str, entry: str) -> None:
    options = ("-q", "--security-opt", "seccomp=unconfined", "--name", "searcher")
    into = ["run", "--rm", *options, debian]
    if entry == "exec":
        rl("run", "-d", *options, debian, "sleep", "1000")
        into = ["exec", "searcher"]
    user = changed(rl, LOGIN)
    open_to_all = changed(user, f"{IMPORTS}command.leave_keyring = lambda: None")
    assert SECRET not in said(user, *into, "python3", "-c", SEARCH)
    assert SECRET in said(open_to_all, *into, "python3", "-c", SEARCH)
    if entry == "exec":
        rl("rm", "-f", "searcher")


# Our own program


@pytest.mark.parametrize("entry", ["run", "exec"])
def test_interpreter_of_the_user_cannot_be_changed_by_what_it_executes(
    rl: Rl, debian: str, own_python: Path, tmp_path: Path, entry: str
) -> None:
    # CVE-2019-5736: the image's script names the file of the process that executes it.
    script = tmp_path / "script"
    script.write_text("#!/proc/self/exe\nimport os\nos.chmod('/proc/self/exe', 0o4777)\n")
    script.chmod(0o755)
    options = ("-q", "-v", f"{script}:/script:ro", "--name", "changer")
    into = ["run", "--rm", *options, debian]
    if entry == "exec":
        rl("run", "-d", *options, debian, "sleep", "1000")
        into = ["exec", "changer"]

    def attack(rl: Rl) -> bool:
        own_python.chmod(0o755)
        said(rl, *into, "/script")
        return own_python.stat().st_mode & 0o7777 == 0o4777

    ours = changed(rl, python=own_python)
    assert not attack(ours)
    assert attack(changed(ours, f"{IMPORTS}interpreter.is_changeable = lambda *_: False"))
    if entry == "exec":
        rl("rm", "-f", "changer")


def test_interpreter_of_the_user_is_executed_anew_among_nobody_who_can_trace_it(
    rl: Rl, own_python: Path
) -> None:
    ours = changed(rl, python=own_python)
    join = ("run", "--rm", "--pid", "container:peer", "alpine", "echo", "joined")
    for options, refused in ((), False), (("--cap-add", "SYS_PTRACE"), True):
        rl("run", "-d", "--name", "peer", *options, "alpine", "sleep", "1000")
        done = ours(*join, check=False)
        assert ("peer has CAP_SYS_PTRACE there" in done.stderr) == refused
        assert done.stdout == ("" if refused else "joined\n")
        rl("rm", "-f", "peer")


def test_process_that_enters_cannot_be_looked_into(rl: Rl, own_python: Path) -> None:
    # Ready to execute the command, with the container's own capabilities, it stays until the spy
    # has begun and ended a look at all processes.
    lingering = f"""{IMPORTS}
import time
wait_for_go = handshake.wait_for_go
def looks():
    return os.stat("/looks").st_size
def linger(channel):
    seen = looks()
    while looks() < seen + 2:
        time.sleep(0.01)
    return wait_for_go(channel)
handshake.wait_for_go = linger
"""
    # The interpreter is executed anew only if it is the user's, and is traceable again then; that
    # program is told by a module of its own what the others inherit.
    spy = "while :; do for p in /proc/[0-9]*; do readlink $p/exe; done > /now; "
    spy += "grep python /now >> /found; printf . >> /looks; done"
    options = ("--security-opt", "seccomp=unconfined")
    rl("run", "-d", "--name", "spy", *options, "alpine", "sh", "-c", spy)
    rl("exec", "spy", "sh", "-c", "until [ -s /looks ]; do sleep 0.05; done")

    def attack(rl: Rl) -> bool:
        said(rl, "exec", "spy", "true")
        return rl("exec", "spy", "test", "-s", "/found", check=False).returncode == 0

    slow = changed(rl, lingering)
    assert not attack(slow)
    dumpable = f"""{IMPORTS}
prctl = syscalls.prctl
def allow(option, argument=0, *rest):
    return prctl(option, 1 if option == syscalls.PR_SET_DUMPABLE else argument, *rest)
syscalls.prctl = allow
"""
    assert attack(changed(slow, dumpable))
    rl("rm", "-f", "spy")


def test_module_of_the_container_is_not_imported_by_what_enters(rl: Rl, service: str) -> None:
    # A module that is imported late would be looked for in the container.
    place = next(path for path in sys.path if path.endswith("site-packages"))
    module = "import os; os.write(1, b'taken over')"
    script = f'mkdir -p {place}; echo "{module}" > {place}/late_module.py'
    rl("exec", service, "sh", "-c", script)
    late = f"""{IMPORTS}
resolve_user = command.resolve_user
def resolve(root, wanted):
    try:
        import late_module
    except ImportError:
        pass
    return resolve_user(root, wanted)
command.resolve_user = resolve
"""
    assert said(changed(rl, late), "exec", service, "echo", "unharmed") == "unharmed\n"
    importing = changed(rl, late, f"{IMPORTS}join._import_no_more = lambda: None")
    assert "taken over" in said(importing, "exec", service, "true")


def test_every_test_that_the_document_names_is_there() -> None:
    top = Path(__file__).parents[2]
    text = (top / "docs/security.md").read_text()
    found = list(re.finditer(r"`([\w/]*test_\w+\.py)?(?:::(test_\w+))?`", text))
    file = Path()
    for match in found:
        if match[1]:
            file = top / (match[1] if "/" in match[1] else f"tests/containers/{match[1]}")
            assert file.exists()
        if match[2]:
            assert f"def {match[2]}(" in file.read_text()
    assert len(found) > 25
