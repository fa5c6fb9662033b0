"""Attacks on a container's walls: each fails, and succeeds where the defence it names is off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.undefended import changed
from tests.support.waiting import PATIENCE, wait_until

SECRET = "the-secret-of-the-host"

# Defences that are missing, as statements.
IMPORTS = "import os\n"
IMPORTS += "from rootless.containers import command, handshake, interpreter, join, rootfs\n"
IMPORTS += "from rootless.kernel import mounts, process, syscalls\n"
IMPORTS += "from rootless.volumes import filling\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a directory of the host that no container was given, with a secret in it."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "secret").write_text(SECRET)
    return directory


@pytest.fixture
def service(rl: Rl) -> Iterator[str]:
    """Return the name of a container that runs, whose root may do all that there is to do."""
    name = f"service-{os.urandom(4).hex()}"
    options = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")
    rl("run", "-d", "--name", name, *options, "alpine", "sleep", "100000")
    yield name
    rl("rm", "-f", name)


def said(rl: Rl, *arguments: str, fd: int | None = None) -> str:
    """Return what the command printed; it inherits the descriptor ``fd`` from us."""
    done = subprocess.run(
        [*rl.command, *arguments],
        env=rl.environment, pass_fds=[] if fd is None else [fd], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, check=False, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout


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


# Paths

NAIVE = f"""{IMPORTS}
mounts.open_in_root = lambda root, path, flags=os.O_PATH: os.open(
    f"/proc/self/fd/{{root}}/{{path}}", flags | os.O_CLOEXEC)
"""


def test_link_of_the_image_leads_no_directory_to_the_host(
    rl: Rl, host: Path, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to(host)

    def attack(rl: Rl) -> bool:
        said(rl, "run", "--rm", "-v", f"{volume}:/vol", "-w", "/vol/link/made", "alpine", "true")
        return (host / "made").exists()

    assert not attack(rl)
    assert attack(changed(rl, NAIVE))


def test_link_in_a_volume_makes_no_part_of_it_of_the_host(rl: Rl, host: Path) -> None:
    rl("volume", "create", "parts")
    (rl.root / "volumes/parts/_data/link").symlink_to(host)
    mount = "type=volume,src=parts,dst=/part,volume-subpath=link"

    def attack(rl: Rl) -> bool:
        return SECRET in said(rl, "run", "--rm", "--mount", mount, "alpine", "cat", "/part/secret")

    assert not attack(rl)
    assert attack(changed(rl, NAIVE))
    rl("volume", "rm", "parts")


def test_console_is_put_over_no_file_of_the_host(rl: Rl, host: Path, tmp_path: Path) -> None:
    # CVE-2025-52565: what is mounted as the console, and where, was looked up by name.
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "link").symlink_to(host)
    (dev / "console").symlink_to("link/made")

    def attack(rl: Rl) -> bool:
        said(rl, "run", "--rm", "-t", "-v", f"{dev}:/dev", "alpine", "true")
        return (host / "made").exists()

    assert not attack(rl)
    assert attack(changed(rl, NAIVE))


def test_what_masks_a_file_is_none_of_the_containers(rl: Rl, tmp_path: Path) -> None:
    # CVE-2025-31133: the container's /dev/null was a link to what it wanted bound.
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "null").symlink_to("/etc/motd")

    def attack(rl: Rl) -> bool:
        command = ("alpine", "cat", "/proc/interrupts")
        return "busybox" in said(rl, "run", "--rm", "-v", f"{dev}:/dev", *command)

    assert not attack(rl)
    by_name = f"""{IMPORTS}
assemble, mask = rootfs.assemble, rootfs._mask
def remember(spec, extra, outside):
    global the_root
    the_root = outside.root
    assemble(spec, extra, outside)
rootfs.assemble = remember
def mask_by_name(fd):
    null = mounts.open_in_root(the_root, "/dev/null")
    mounts.bind(null, fd, mounts.parse_options(("ro",)))
rootfs._mask = lambda fd: mask(fd) if os.path.isdir(f"/proc/self/fd/{{fd}}") else mask_by_name(fd)
"""
    assert attack(changed(rl, by_name))


def test_volume_that_is_filled_leads_nothing_of_the_image_to_the_host(
    rl: Rl, registry: Registry, host: Path, tmp_path: Path
) -> None:
    # Another container exchanges a directory for a link as soon as it has been made.
    layout = tmp_path / "layout"
    images.busybox(layout, {"content/sub/secret": "of the image", "content/sub/new": "new"})
    registry.push(f"oci:{layout}:latest", "tests/content")
    image = f"{registry.host}/tests/content"
    rl("pull", "-q", image)

    def attack(rl: Rl) -> bool:
        rl("volume", "create", "exchanged")
        data, done = rl.root / "volumes/exchanged/_data", tmp_path / "done"
        exchanging = f"""{IMPORTS}
from rootless.containers import unpack
make_directory = unpack._Unpacker._make_directory
def make_and_exchange(*arguments):
    make_directory(*arguments)
    os.rename({str(data / "sub")!r}, {str(data / "moved")!r})
    os.symlink({str(host)!r}, {str(data / "sub")!r})
    open({str(done)!r}, "w").close()
unpack._Unpacker._make_directory = make_and_exchange
"""
        said(changed(rl, exchanging), "run", "--rm", "-v", "exchanged:/content", image, "true")
        # Of a filling that failed nothing is left.
        done.unlink()
        rl("volume", "rm", "exchanged")
        return (host / "new").exists() or (host / "secret").read_text() != SECRET

    assert not attack(rl)
    naive = "from rootless.containers import unpack; unpack._PARENT &= ~os.O_NOFOLLOW"
    assert attack(changed(rl, f"{IMPORTS}{naive}"))


def test_container_cannot_hold_up_those_that_fill_a_volume_that_it_reads(
    rl: Rl, debian: str
) -> None:
    hold = "import fcntl, os, time; fcntl.flock(os.open('/data', os.O_RDONLY), fcntl.LOCK_EX); "
    hold += "print('held', flush=True); time.sleep(100000)"
    options = ("-q", "--name", "holder", "-v", "held:/data:ro")
    rl("run", "-d", *options, debian, "python3", "-c", hold)
    wait_until(lambda: "held" in rl("logs", "holder").stdout)
    # Who would wait gives up.
    impatient = """
import fcntl
from types import SimpleNamespace
from rootless.volumes import filling
filling.fcntl = SimpleNamespace(
    flock=fcntl.flock, LOCK_EX=fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_UN=fcntl.LOCK_UN)
"""

    def attack(rl: Rl) -> bool:
        return "root:" not in said(
            rl, "run", "--rm", "-v", "held:/etc", "alpine", "cat", "/etc/passwd"
        )

    within = "filling.open_filling = lambda data: os.open(data, os.O_RDONLY | os.O_CLOEXEC)"
    assert attack(changed(rl, impatient, f"{IMPORTS}{within}"))
    assert not attack(changed(rl, impatient))
    rl("rm", "-f", "holder")


def test_nobody_can_exchange_proc_before_it_is_masked(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    # CVE-2023-27561 and CVE-2025-52881: the image's /proc is a link into a volume, where another
    # container exchanges what procfs was mounted on before masks and sysctls are applied.
    link = tarfile.TarInfo("proc")
    link.type, link.linkname = tarfile.SYMTYPE, "vol/proc"
    layout = tmp_path / "layout"
    images.busybox(layout, {"proc": link})
    registry.push(f"oci:{layout}:latest", "tests/proclink")
    image = f"{registry.host}/tests/proclink"
    rl("pull", "-q", image)
    volume = tmp_path / "volume"

    def prepare() -> None:
        shutil.rmtree(volume, ignore_errors=True)
        fake = volume / "fake/sys/net/ipv4/ip_unprivileged_port_start"
        fake.parent.mkdir(parents=True)
        (volume / "proc").mkdir()
        (volume / "victim").write_text("as it was")
        fake.symlink_to("/vol/victim")
        # What is read there before the command is executed.
        (volume / "fake/sys/kernel").mkdir()
        (volume / "fake/sys/kernel/cap_last_cap").write_text("40")

    # The adversary is always quick enough: PID 1 waits for it.
    waiting = f"""{IMPORTS}
import time
mount = rootfs._mount
def and_wait(spec, *rest):
    mount(spec, *rest)
    if spec["type"] == "proc":
        open({str(volume / "mounted")!r}, "w").close()
        while not os.path.exists({str(volume / "exchanged")!r}):
            time.sleep(0.01)
rootfs._mount = and_wait
"""
    # Procfs is the first of all mounts, so only what is the container's own can lead to it.
    late = f"""{IMPORTS}
assemble = rootfs.assemble
def proc_last(spec, *rest):
    order = sorted(spec["mounts"], key=lambda mount: mount["type"] == "proc")
    assemble({{**spec, "mounts": order}}, *rest)
rootfs.assemble = proc_last
"""

    def attack(rl: Rl) -> tuple[bool, bool]:
        """Return whether a masked file can be read, and whether a sysctl went elsewhere."""
        prepare()
        options = ("-q", "--rm", "--network", "none", "-v", f"{volume}:/vol")
        script = "wc -c < /vol/moved/interrupts"
        with rl.start(
            "run", *options, image, "/bin/sh", "-c", script, stdout=subprocess.PIPE
        ) as process:
            wait_until(lambda: process.poll() is not None or (volume / "mounted").exists())
            (volume / "proc").rename(volume / "moved")
            (volume / "fake").rename(volume / "proc")
            (volume / "exchanged").touch()
            read = process.communicate()[0]
        return int(read or 0) > 0, (volume / "victim").read_text() != "as it was"

    raced = changed(rl, waiting)
    assert attack(raced) == (False, False)
    assert attack(changed(raced, late)) == (True, True)


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
