"""Whole programs on a real mount: archives, databases, version control."""

from __future__ import annotations

import os
import pwd
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        "db = sqlite3.connect(sys.argv[1], timeout=600, isolation_level=None)\n"
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


@in_namespace
def test_git_repositories_of_eight_processes_are_whole(tmp_path: Path) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    for repo in range(8):
        fill(low / f"r{repo}", {f"d{i}/f{j}": f"{i} {j}\n" for i in range(5) for j in range(5)})
    script = """
        set -e
        git init -q . && git add -A && git commit -qm first
        for i in 0 1 2 3 4; do
            git mv d$i moved$i; echo $i > new$i; echo more >> moved$i/f1; rm moved$i/f2
            git add -A; git commit -qm $i
        done
        git gc -q --prune=now
        git clone -q . clone
        git -C clone fsck --full --strict
        git checkout -q HEAD~5 && test -f d3/f2
        test -z "$(git status --porcelain | grep -v clone/)"
        git fsck --full --strict
    """
    settings = {"user.name": "n", "user.email": "e", "safe.directory": "*", "gc.autoDetach": "0"}
    environment = os.environ | {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    with mounted([low], upper, work, tmp_path / "m") as m:
        writers = [
            subprocess.Popen(["sh", "-c", script], cwd=m / f"r{repo}", env=environment)
            for repo in range(8)
        ]
        assert [writer.wait() for writer in writers] == [0] * 8
    with mounted([low], upper, work, tmp_path / "m") as m:
        for repo in range(8):
            fsck = ["git", "-C", str(m / f"r{repo}"), "fsck", "--full", "--strict"]
            done = subprocess.run(fsck, env=environment, check=True, capture_output=True, text=True)
            assert done.stdout == ""


def _package(directory: Path, name: str, version: int, files: dict[str, str]) -> Path:
    """Build a Debian package that has a configuration file and one program with set-id bits."""
    root = directory / f"{name}-{version}"
    fill(root, files)
    fill(root, {f"usr/bin/{name}": f"{name} {version}", f"etc/{name}.conf": f"{version}\n"})
    (root / f"usr/bin/{name}").chmod(0o4755)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
    control += "Maintainer: nobody <n@example.com>\nDescription: for a test\n"
    fill(root, {"DEBIAN/control": control, "DEBIAN/conffiles": f"/etc/{name}.conf\n"})
    package = directory / f"{name}-{version}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", root, package], check=True, capture_output=True)
    return package


@in_namespace
def test_dpkg_finds_what_it_installed_unchanged(tmp_path: Path) -> None:
    low, upper, work, build = layers(tmp_path, "low", "upper", "work", "build")
    os.umask(0o22)
    _debian_like(low)
    fill(low, {"var/lib/dpkg/status": "", "var/lib/dpkg/info/": "", "var/lib/dpkg/updates/": ""})

    def dpkg(root: Path, *arguments: str | Path) -> str:
        command = ["dpkg", f"--root={root}", "--log=/dev/null", "--force-confnew", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    old = {f"usr/share/a/{i}": f"old {i}" for i in range(60)}
    old |= {"usr/share/a/dir/x": "x", "usr/share/a/link": "-> dir"}
    new = {f"usr/share/a/{i}": f"new {i}" * 500 for i in range(30, 90)}
    new |= {"usr/share/a/link": "-> 40", "usr/share/a/other/dir/x": "x"}
    b = {f"usr/lib/b/{i}.so": f"{i}" for i in range(40)}
    dpkg(low, "-i", _package(build, "a", 1, old), _package(build, "b", 1, b))
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert dpkg(m, "--verify") == ""
        c = {"usr/lib/c/c.so": "c"}
        dpkg(m, "-i", _package(build, "a", 2, new), _package(build, "c", 1, c))
        dpkg(m, "--remove", "b")
        assert dpkg(m, "--verify") == ""
    with mounted([low], upper, work, tmp_path / "m") as m:
        assert dpkg(m, "--verify") == ""
        shown = {str(path.relative_to(m)) for path in (m / "usr/share/a").rglob("*")}
        assert shown == set(new) | {"usr/share/a/other", "usr/share/a/other/dir"}
        assert os.readlink(m / "usr/share/a/link") == "40"
        assert not (m / "usr/lib/b").exists()
        assert (m / "etc/b.conf").read_text() == "1\n"  # stays until it is purged
        assert (m / "etc/a.conf").read_text() == "2\n"
        assert (m / "usr/bin/a").stat().st_mode & 0o7777 == 0o4755
        assert list(m.rglob("*.dpkg-*")) == list(low.rglob("*.dpkg-*"))


_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]


class _Postgres:
    """PostgreSQL's programs as a user of its own (it refuses root), on the data in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.user = pwd.getpwnam("postgres").pw_uid
        self._environment = os.environ | {"PGHOST": str(directory), "PGUSER": "p"}

    def command(self, program: str, *arguments: str) -> list[str]:
        user = str(self.user)
        return [
            "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
            str(_POSTGRES[0] / program), *arguments,
        ]  # fmt: skip

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(program, *arguments), env=self._environment, cwd=self._directory,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, program: str, *arguments: str) -> str:
        process = self.start(program, *arguments)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def ask(self, query: str) -> int:
        return int(self.run("psql", "-XAtc", query, "postgres"))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the server, and kill it with all its processes at the end."""
        settings = [
            f"unix_socket_directories={self._directory}", "listen_addresses=",
            "dynamic_shared_memory_type=mmap", "wal_sync_method=fdatasync",
        ]  # fmt: skip
        options = [word for setting in settings for word in ("-c", setting)]
        data = str(self._directory / "data")
        command = shlex.join(self.command("postgres", "-D", data, *options))
        server = subprocess.Popen(
            # The first process of a PID namespace, here sh, takes all others with it.
            ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", f"{command}; exit 1"],
            cwd=self._directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert server.stdout
        log = []
        try:
            for line in server.stdout:
                log.append(line.decode())
                if b"ready to accept connections" in line:
                    break
            else:
                pytest.fail("".join(log))
            yield
        finally:
            server.kill()
            server.communicate()  # ends when the last process has


@in_namespace
def test_postgresql_keeps_what_it_committed_when_it_is_killed(tmp_path: Path) -> None:
    low, first, first_work, second, work = layers(tmp_path, "low", "1", "1w", "2", "2w")
    # In this namespace's /mnt, as another user may not enter the directory of the test.
    postgres = _Postgres(Path("/mnt"))
    for directory in (first, second):
        os.chown(directory, postgres.user, postgres.user)
    with mounted([low], first, first_work, Path("/mnt")):
        postgres.run("initdb", "-D", "data", "-U", "p", "-A", "trust", "--no-sync", "--no-locale")
        with postgres.serving():
            postgres.run("pgbench", "-i", "-q", "postgres")
    with mounted([first, low], second, work, Path("/mnt")):
        with postgres.serving():
            postgres.run("pgbench", "-n", "-c", "8", "-j", "2", "-t", "50", "postgres")
            load = postgres.start("pgbench", "-n", "-c", "8", "-t", "100000", "postgres")
            history = "select count(*) from pgbench_history"
            while (committed := postgres.ask(history)) < 600:
                assert load.poll() is None, load.communicate()
        assert load.communicate()[0]
        with postgres.serving():
            assert postgres.ask(history) >= committed
            total = postgres.ask("select sum(delta) from pgbench_history")
            for letter, table in (("a", "accounts"), ("b", "branches"), ("t", "tellers")):
                balances = f"select sum({letter}balance) from pgbench_{table}"
                assert postgres.ask(balances) == total
            postgres.run("pg_amcheck", "--install-missing", "--heapallindexed", "postgres")
            assert "COPY public.pgbench_accounts" in postgres.run("pg_dump", "postgres")
