"""`rl diff` and `rl export`: what a container has made of its image."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import tarfile
from pathlib import Path

import pytest

from fuse_overlay import layers
from rootless.containers.diff import _differences
from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl

FILES = {
    "a/": b"", "a/keep": b"1", "a/change": b"2", "a/delete": b"3", "a/only/x": b"4", "b/x": b"5",
    "b/y/z": b"6", "c/x": b"7", "file": b"8", "dir/": b"", "dir/x": b"9", "mode/": b"",
    "whole/x/y": b"0",
}  # fmt: skip


@pytest.fixture(scope="module")
def image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of an image with a layer of files to change."""
    layout = tmp_path_factory.mktemp("image")
    images.busybox(layout, FILES)
    registry.push(f"oci:{layout}:latest", "tests/diff")
    return f"{registry.host}/tests/diff"


def changes(rl: Rl, image: str, script: str, *options: str) -> list[str]:
    """Return the lines of diff after a script; they are the same while it runs."""
    rl("run", "-d", "--name", "changed", *options, image, "sh", "-c",
       f"{script}; touch /dev/ready; exec sleep 100000")  # fmt: skip
    try:
        while rl("exec", "changed", "test", "-e", "/dev/ready", check=False).returncode:
            pass
        running = rl("diff", "changed").stdout
        rl("stop", "-t", "0", "changed")
        assert rl("diff", "changed").stdout == running
        return running.splitlines()
    finally:
        rl("rm", "-f", "-v", "changed")


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("true", []),
        ("cat /a/keep; ls -R / > /dev/null", []),
        ("echo > /a/change", ["C /a", "C /a/change"]),
        ("echo > /a/new; mkdir -p /n/m", ["C /a", "A /a/new", "A /n", "A /n/m"]),
        ("rm /a/delete", ["C /a", "D /a/delete"]),
        ("rm -r /a/only", ["C /a", "D /a/only"]),
        ("rm -r /b; mkdir /b; echo > /b/x", ["C /b", "C /b/x", "D /b/y"]),
        ("rm -r /b/y; echo > /b/y", ["C /b", "C /b/y"]),
        ("rm /file; mkdir /file; echo > /file/x", ["C /file", "A /file/x"]),
        ("mv /dir /moved", ["D /dir", "A /moved", "A /moved/x"]),
        ("chmod 700 /mode", ["C /mode"]),
        ("chmod 600 /c/x", ["C /c", "C /c/x"]),
        ("mv /whole/x /whole/z", ["C /whole", "D /whole/x", "A /whole/z", "A /whole/z/y"]),
        ("touch /new; rm /new", []),
        ("printf x > \"/a/$(printf 'n\\033[1m')\"", ["C /a", r"A /a/n\x1b[1m"]),
        ("ln -s keep /a/link; mkfifo /a/pipe", ["C /a", "A /a/link", "A /a/pipe"]),
    ],
)
def test_each_change_is_shown_as_docker_does(
    rl: Rl, image: str, script: str, lines: list[str]
) -> None:
    assert changes(rl, image, script) == lines


def test_what_is_mounted_shows_only_its_place(rl: Rl, image: str) -> None:
    assert changes(rl, image, "echo > /v/x; echo > /a/x", "-v", "/v", "--tmpfs", "/a") == ["A /v"]


def test_only_changed_directories_are_looked_at_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rootless.containers import diff

    for layer in ("low", "up"):
        (tmp_path / layer / "a/b").mkdir(parents=True)
        (tmp_path / layer / "a/b/f").touch()
    for number in range(50):
        (tmp_path / f"low/a/d{number}/e").mkdir(parents=True)
    scans = []

    def counting(directory: int) -> object:
        scans.append(directory)
        return layers.scan(directory)

    monkeypatch.setattr(diff, "scan", counting)
    found = _differences(str(tmp_path / "up"), [str(tmp_path / "low")], ())
    assert [change.path for change in found] == ["/a/b/f", "/a/b", "/a"]
    assert len(scans) == 6


@pytest.fixture
def exported(rl: Rl) -> str:
    """Return the name of a container that runs, with files, a volume and a tmpfs."""
    script = """
        echo mine > /mine; chown 12:34 /mine; rm /etc/motd; echo > /v/in; echo > /t/in
        touch /dev/ready; exec sleep 100000
    """
    rl("run", "-d", "--name", "exported", "-v", "/v", "--tmpfs", "/t", "alpine", "sh", "-c", script)
    while rl("exec", "exported", "test", "-e", "/dev/ready", check=False).returncode:
        pass
    return "exported"


def test_export_is_the_merged_tree_without_what_is_mounted(
    rl: Rl, exported: str, tmp_path: Path
) -> None:
    def archive() -> dict[str, tarfile.TarInfo]:
        done = subprocess.run(
            [*rl.command, "export", exported], env=rl.environment, check=True, capture_output=True
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            return {entry.name: entry for entry in tar}

    try:
        found = archive()
        assert (found["mine"].uid, found["mine"].gid) == (12, 34)
        assert found["bin/busybox"].size > 100000
        assert {"v", "t", "proc", "dev", "sys", "etc/hosts"} <= set(found)
        assert "etc/motd" not in found
        below = ("v/", "t/", "proc/", "dev/", "sys/")
        assert not [name for name in found if name.startswith(below)]
        assert found["etc/hosts"].size == 0
        rl("stop", "-t", "0", exported)
        assert archive().keys() == found.keys()
        rl("export", "-o", str(tmp_path / "x.tar"), exported)
        with tarfile.open(tmp_path / "x.tar") as tar:
            assert set(tar.getnames()) == set(found)
        assert os.listdir(tmp_path) == ["x.tar"]
        (tmp_path / "tree").mkdir()
        subprocess.run(["tar", "-xf", tmp_path / "x.tar", "-C", tmp_path / "tree"], check=True)
    finally:
        rl("rm", "-f", "-v", exported)


def test_export_is_not_written_to_a_terminal_nor_left_half(rl: Rl, tmp_path: Path) -> None:
    rl("create", "--name", "half", "alpine", "true")
    try:
        master, slave = pty.openpty()
        done = subprocess.run(
            [*rl.command, "export", "half"], env=rl.environment, check=False, stdout=slave,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(master)
        os.close(slave)
        assert done.returncode == 125
        assert "not written to a terminal" in done.stderr
        nowhere = rl("export", "-o", str(tmp_path / "no/x.tar"), "half", check=False)
        assert nowhere.stderr == (
            f"rl: cannot write {tmp_path}/no/x.tar: No such file or directory\n"
        )
        (tmp_path / "x.tar").write_text("old")
        limited = f"ulimit -f 1; exec {rl.command[0]} export -o {tmp_path}/x.tar half"
        done = subprocess.run(
            ["bash", "-c", limited], env=rl.environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 125
        assert done.stderr.startswith("rl: ")
        assert (tmp_path / "x.tar").read_text() == "old"
        assert os.listdir(tmp_path) == ["x.tar"]
    finally:
        rl("rm", "half")


def test_export_into_a_pipe_that_closes_ends_as_programs_do(rl: Rl) -> None:
    rl("create", "--name", "piped", "alpine", "true")
    try:
        script = f"{rl.command[0]} export piped | head -c 10 | wc -c; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", script], env=rl.environment, check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == ["10", "141"]
        assert done.stderr == ""
    finally:
        rl("rm", "piped")
