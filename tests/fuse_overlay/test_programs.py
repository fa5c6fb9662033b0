"""Whole programs on a real mount: archives, databases, version control."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuse_overlay.support import fill, in_namespace, layers, mounted, tree


def _debian_like(root: Path) -> None:
    """Make a tree with what a Debian root has: odd owners, set-id bits, links, capabilities."""
    fill(root, {f"usr/share/doc/p{i}/copyright": f"of {i}\n" * i for i in range(100)})
    fill(root, {f"usr/lib/python/m{i}.py": f"x = {i}\n" * 50 for i in range(100)})
    fill(root, {"usr/bin/su": "su", "usr/bin/perl": "perl", "bin": "-> usr/bin", "var/mail/": ""})
    fill(root, {"etc/alternatives/awk": "-> /usr/bin/mawk", "var/lib/apt/partial/": "", "tmp/": ""})
    os.link(root / "usr/bin/perl", root / "usr/bin/perl5")
    (root / "usr/bin/su").chmod(0o4755)
    os.chown(root / "var/mail", 0, 8)
    (root / "var/mail").chmod(0o2775)
    os.chown(root / "var/lib/apt/partial", 42, 0)
    (root / "tmp").chmod(0o1777)
    os.lchown(root / "etc/alternatives/awk", 3, 4)
    os.mkfifo(root / "var/fifo", 0o622)
    with (root / "var/log").open("wb") as sparse:
        sparse.truncate(50 << 20)


@in_namespace
def test_tar_copies_a_tree_in_and_out_unchanged(tmp_path: Path) -> None:
    low, upper, work, out = layers(tmp_path, "low", "upper", "work", "out")
    os.umask(0o22)
    _debian_like(low)
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert _below(tree(m)) == _below(tree(low))
        (m / "copy").mkdir()
        _tar(low, m / "copy")
        assert _below(tree(m / "copy")) == _below(tree(low))
        _tar(m / "copy", out)
        assert _below(tree(out)) == _below(tree(low))
        assert (m / "copy/var/log").stat().st_blocks == 0
        subprocess.run(["rm", "-rf", *m.iterdir()], check=True)
        assert list(m.iterdir()) == []


def _tar(source: Path, target: Path) -> None:
    flags = ["--xattrs", "--sparse", "--numeric-owner"]
    unpack: list[str | Path] = ["tar", "-C", target, *flags, "-xp"]
    with subprocess.Popen(["tar", "-C", source, *flags, "-c", "."], stdout=subprocess.PIPE) as pack:
        subprocess.run(unpack, stdin=pack.stdout, check=True)
    assert pack.returncode == 0


def _below(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """A tree without the root itself, which is the upper directory's."""
    return {name: entry for name, entry in found.items() if name != "."}


@in_namespace
def test_package_managers_may_rename_lower_directories(tmp_path: Path) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    fill(low, {"node_modules/a/index.js": "a", "node_modules/a/lib/b.js": "b", "usr/x/y": "y"})
    with mounted([low], upper, work, tmp_path / "m") as m:
        os.rename(m / "node_modules/a", m / "node_modules/.a-old")
        fill(m, {"node_modules/a/index.js": "new"})
        subprocess.run(["rm", "-r", m / "node_modules/.a-old"], check=True)
        assert os.listdir(m / "node_modules/a") == ["index.js"]
        subprocess.run(["mv", m / "usr", m / "opt"], check=True)
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert sorted(os.listdir(m)) == ["node_modules", "opt"]
        assert os.listdir(m / "node_modules") == ["a"]
        assert (m / "opt/x/y").read_text() == "y"


@pytest.mark.parametrize("journal", ["delete", "wal"])
@in_namespace
def test_sqlite_keeps_every_row_of_several_processes(tmp_path: Path, journal: str) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    with sqlite3.connect(low / "db") as lower:
        lower.execute(f"pragma journal_mode={journal}")
        lower.execute("create table t (writer int, n int, text text)")
        lower.executemany("insert into t values (9, ?, ?)", [(n, "x" * 500) for n in range(500)])
        lower.commit()
    lower.close()
    insert = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
        "for n in range(100):\n"
        "    db.execute('insert into t values (?, ?, ?)', (int(sys.argv[2]), n, 'y' * 500))\n"
    )
    with mounted([low], upper, work, tmp_path / "m") as m:
        command = [sys.executable, "-c", insert, str(m / "db")]
        writers = [subprocess.Popen([*command, str(writer)]) for writer in range(4)]
        assert [writer.wait() for writer in writers] == [0] * 4
    with mounted([low], upper, work, tmp_path / "m") as m:
        database = sqlite3.connect(m / "db")
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        counts = database.execute("select count(*) from t group by writer").fetchall()
        database.close()
    assert counts == [(100,)] * 4 + [(500,)]


@in_namespace
def test_git_finds_its_repository_whole(tmp_path: Path) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    fill(low / "repo", {f"d{i}/f{j}": f"{i} {j}\n" for i in range(10) for j in range(10)})
    with mounted([low], upper, work, tmp_path / "m") as m:
        repo = m / "repo"

        def git(*arguments: str) -> str:
            identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "safe.directory=*"]
            command = ["git", *identity, "-C", str(repo), *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        git("init", "-q")
        git("add", "-A")
        git("commit", "-qm", "first")
        git("mv", "d1", "renamed")
        (repo / "d2/f3").write_text("changed\n")
        git("commit", "-qam", "second")
        git("gc", "-q")
        git("clone", "-q", str(repo), str(m / "clone"))
        git("checkout", "-q", "HEAD~1")
        assert (repo / "d1/f1").read_text() == "1 1\n"
        assert git("status", "--porcelain") == ""
        assert "dangling" not in git("fsck", "--full", "--strict")
