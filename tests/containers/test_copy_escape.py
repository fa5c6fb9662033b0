"""Ways out of a container through `rl cp` that others have found, tried on ours.

Each is tried again with the defence taken away, and then succeeds: so it fails for its reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rootless.archive import unpack as unpacking
from rootless.archive.unpack import Place, Rules, unpack
from rootless.containers.copy import End, Options, copy
from rootless.errors import RlError
from rootless.kernel import mounts
from tests.support.runner import Rl
from tests.support.undefended import changed

ROUNDS = 40
HOST = Rules(keep=False, as_root=False, setid=False)

# /d is by turns a directory and a link to a directory of the host, as fast as can be.
SWAP = """
mkdir /d; echo inside > /d/f; ln -s "$HOST_DIRECTORY" /link; touch /ready
while :; do mv -T /d /kept; mv -T /link /d; mv -T /d /link; mv -T /kept /d; done
"""


@contextmanager
def container(rl: Rl, script: str, *options: str) -> Iterator[str]:
    """Run a container that attacks, until it is ready and then on."""
    name = "attacker"
    rl("run", "-d", "--name", name, *options, "alpine", "sh", "-c", script)
    try:
        while rl("exec", name, "test", "-e", "/ready", check=False).returncode:
            pass
        yield name
    finally:
        rl("rm", "-f", name)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return a directory of the host that no container is to reach."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "f").write_text("secret")
    return directory


def as_the_host_resolves(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open a path as a runtime would that joined it to the container's directory."""
    return os.open(f"/proc/self/fd/{root}/{path}", flags | os.O_CLOEXEC)


def test_link_that_is_swapped_in_while_copying_out_leads_nowhere(
    rl: Rl, secrets: Path, tmp_path: Path
) -> None:
    # CVE-2018-15664
    out = tmp_path / "out"
    seen = set()
    with container(rl, SWAP, "-e", f"HOST_DIRECTORY={secrets}") as name:
        for _ in range(ROUNDS):
            if rl("cp", f"{name}:/d/f", str(out), check=False).returncode == 0:
                seen.add(out.read_text())
    assert seen == {"inside\n"}


def test_link_that_is_swapped_in_while_copying_in_leads_nowhere(
    rl: Rl, secrets: Path, tmp_path: Path
) -> None:
    (tmp_path / "g").write_text("planted")
    done = 0
    with container(rl, SWAP, "-e", f"HOST_DIRECTORY={secrets}") as name:
        for _ in range(ROUNDS):
            done += not rl("cp", str(tmp_path / "g"), f"{name}:/d/", check=False).returncode
    assert done
    assert os.listdir(secrets) == ["f"]


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_link_leads_out_only_where_the_kernel_is_not_told_to_stay_inside(
    rl: Rl, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    (tmp_path / "g").write_text("planted")
    script = f'ln -s "{secrets}" /d; touch /ready; sleep 100000'

    def attack() -> str:
        """Read the secret and plant a file; return what was read."""
        for source, target in ((f"{name}:/d/f", out), (tmp_path / "g", f"{name}:/d/")):
            copy(rl.root, End.parse(str(source)), End.parse(str(target)), Options())
        return out.read_text()

    out = tmp_path / "out"
    with container(rl, script) as name:
        if state == "stopped":
            rl("stop", "-t", "0", name)
        with pytest.raises(RlError, match="No such file or directory"):
            attack()
        assert os.listdir(secrets) == ["f"]
        monkeypatch.setattr(mounts, "open_in_root", as_the_host_resolves)
        assert attack() == "secret"
        assert sorted(os.listdir(secrets)) == ["f", "g"]


def test_link_that_is_swapped_in_where_the_copy_goes_is_not_followed(
    rl: Rl, secrets: Path, tmp_path: Path
) -> None:
    # The host's directory is the container's, too.
    shared = tmp_path / "shared"
    shared.mkdir()
    script = """
        mkdir -p /d/sub /shared/d/sub; echo planted > /d/sub/g; ln -s ../../host /shared/link
        touch /ready; cd /shared/d
        while :; do mv -T sub ../kept; mv -T ../link sub; mv -T sub ../link; mv -T ../kept sub; done
    """
    with container(rl, script, "-v", f"{shared}:/shared") as name:
        for _ in range(ROUNDS):
            rl("cp", f"{name}:/d", str(shared), check=False)
    assert os.listdir(secrets) == ["f"]


def test_link_put_where_the_copy_goes_leads_out_only_where_links_are_followed(
    rl: Rl, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    make_directory = unpacking._Unpacker._make_directory

    def and_exchange_it(*arguments: Any) -> None:
        """Do what a container that shares the directory does, at the one moment that counts."""
        make_directory(*arguments)
        made = shared / "d/sub"
        if made.is_dir() and not made.is_symlink():
            made.rename(shared / "kept")
            made.symlink_to(secrets)

    monkeypatch.setattr(unpacking._Unpacker, "_make_directory", and_exchange_it)
    script = "mkdir -p /d/sub; echo planted > /d/sub/g; touch /ready; sleep 100000"

    def attack() -> None:
        shutil.rmtree(shared)
        shared.mkdir()
        copy(rl.root, End.parse(f"{name}:/d"), End.parse(str(shared)), Options())

    with container(rl, script, "-v", f"{shared}:/shared") as name:
        with pytest.raises(RlError, match="sub/g"):
            attack()
        assert os.listdir(secrets) == ["f"]
        monkeypatch.setattr(unpacking, "_PARENT", os.O_PATH | os.O_DIRECTORY)
        # Who gives the directory its time and mode at the end finds the link in its place.
        with contextlib.suppress(RlError):
            attack()
        assert (secrets / "g").read_text() == "planted\n"


# Loaded before, as all is that a copy needs, but for modules that are wanted late.
LATE = """
import sys
from rootless.archive import pack, unpack
from rootless.containers import view
for name in ("bz2", "lzma", "_compression"):
    del sys.modules[name]
"""
# As docker-tar was: its root is the container's.
IN_ITS_ROOT = """
import os
serve_all = view._serve_all
def in_its_root(root, channels):
    os.fchdir(root)
    os.chroot(".")
    return serve_all(root, channels)
view._serve_all = in_its_root
"""


def test_nothing_is_loaded_from_the_container(rl: Rl) -> None:
    # CVE-2019-14271: a module that is needed late, at the place where it is on the host.
    library = Path(sysconfig.get_path("stdlib"))
    packages = [Path(path) for path in (sysconfig.get_path("purelib"),)]
    trap = "open('/trapped', 'w').close()\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for directory in (library, *packages):
            for module in ("bz2", "lzma", "_compression", "tarfile", "rootless"):
                info = tarfile.TarInfo(f"{str(directory).lstrip('/')}/{module}.py")
                info.size = len(trap)
                tar.addfile(info, io.BytesIO(trap.encode()))

    def attack(rl: Rl, compression: str) -> bool:
        """Copy something of which that module has to be loaded; tell whether it was ours."""
        packed = archive.getvalue()
        if compression:
            packed = subprocess.run(
                [compression], input=packed, check=True, capture_output=True
            ).stdout
        command = [*rl.command, "cp", "-", f"{name}:/"]
        subprocess.run(command, env=rl.environment, input=packed, check=False, capture_output=True)
        return rl("exec", name, "test", "-e", "/trapped", check=False).returncode == 0

    with container(rl, "touch /ready; exec sleep 100000") as name:
        for compression in ("", "bzip2", "xz"):
            assert not attack(rl, compression)
        assert rl("exec", name, "test", "-e", f"{library}/bz2.py").returncode == 0
        assert not attack(changed(rl, LATE), "bzip2")
        assert attack(changed(rl, LATE, IN_ITS_ROOT), "bzip2")
    assert not Path("/trapped").exists()


# Archives that nobody makes by mistake, unpacked on the host.


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o4755
    info.size = 7 if kind == tarfile.REGTYPE else 0
    return info


def archive_of(*members: tarfile.TarInfo) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"planted"[: info.size]))
    data.seek(0)
    return data


LEADS_OUT = {
    "a name above": [member("../host/x")],
    "a name above, later": [member("d/../../host/x")],
    "a link, then through it": [member("l", tarfile.SYMTYPE, "../host"), member("l/x")],
    "an absolute link": [member("l", tarfile.SYMTYPE, "HOST"), member("l/x")],
    "a directory, then a link, then through it": [
        member("l", tarfile.DIRTYPE),
        member("l", tarfile.SYMTYPE, "../host"),
        member("l/x"),
    ],
    "a link, then a directory on it": [
        member("l", tarfile.SYMTYPE, "../host"),
        member("l", tarfile.DIRTYPE),
        member("l/x"),
    ],
    "a hard link above": [member("x", tarfile.LNKTYPE, "../host/f"), member("x")],
    "a hard link through a link": [
        member("l", tarfile.SYMTYPE, "../host"),
        member("x", tarfile.LNKTYPE, "l/f"),
        member("x"),
    ],
    "a FIFO through a link": [
        member("l", tarfile.SYMTYPE, "../host"),
        member("l/x", tarfile.FIFOTYPE),
    ],
}


@pytest.mark.parametrize("members", LEADS_OUT.values(), ids=LEADS_OUT.keys())
def test_archive_leads_nowhere_but_below_the_destination(
    secrets: Path, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    (tmp_path / "to").mkdir()
    for info in members:
        info.linkname = info.linkname.replace("HOST", str(secrets))
    before = secrets.stat()
    base = os.open(tmp_path / "to", os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(RlError):
        unpack(archive_of(*members), Place(base), HOST)
    os.close(base)
    assert os.listdir(secrets) == ["f"]
    assert (secrets / "f").read_text() == "secret"
    assert (secrets / "f").stat().st_nlink == 1
    after = secrets.stat()
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)


def test_archive_leads_out_where_links_are_followed(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "to").mkdir()
    monkeypatch.setattr(unpacking, "_PARENT", os.O_PATH | os.O_DIRECTORY)
    base = os.open(tmp_path / "to", os.O_PATH | os.O_DIRECTORY)
    unpack(archive_of(*LEADS_OUT["a link, then through it"]), Place(base), HOST)
    os.close(base)
    assert (secrets / "x").read_text() == "planted"


def test_file_that_has_other_names_is_replaced_not_written_to(
    secrets: Path, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    to.mkdir()
    os.link(secrets / "f", to / "f")
    (to / "g").symlink_to(secrets / "f")
    base = os.open(to, os.O_PATH | os.O_DIRECTORY)
    unpack(archive_of(member("f"), member("g")), Place(base), HOST)
    os.close(base)
    assert (secrets / "f").read_text() == "secret"
    assert [(to / name).read_text() for name in "fg"] == ["planted", "planted"]
    assert {(to / name).stat().st_mode & 0o7777 for name in "fg"} == {0o755}


@pytest.mark.parametrize("cut", [1, 512 + 3, 1024, 1536, 2048 - 1])
def test_archive_that_is_cut_off_is_an_error(tmp_path: Path, cut: int) -> None:
    whole = archive_of(member("f"), member("g")).getvalue()
    base = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(RlError):
        unpack(io.BytesIO(whole[:cut]), Place(base), HOST)
    os.close(base)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".rl-cp")]


def test_sparse_table_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    info = member("GNUSparseFile.0/f")
    table = b"2\n0\n4\n2\n4\n"
    info.size = 512 + 8
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "f",
        "GNU.sparse.realsize": "6",
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(table.ljust(512, b"\0") + b"x" * 8))
    data.seek(0)
    base = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(RlError, match="makes no sense"):
        unpack(data, Place(base), HOST)
    os.close(base)
