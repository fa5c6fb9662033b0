"""Attacks by paths and links: each fails, and succeeds where the defence it names is off."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.containers.attack import IMPORTS, SECRET, said
from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.undefended import changed
from tests.support.waiting import wait_until

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
from rootless.archive import unpack
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
    naive = "from rootless.archive import unpack; unpack._PARENT &= ~os.O_NOFOLLOW"
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
