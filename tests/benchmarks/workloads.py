"""The work that the overlay benchmark gives to each file system, and the layers it is done on.

A layer is made once, when the first workload asks for it, and only read from then on. Knows
nothing of who is measured. Used by overlay.py, as root of a user namespace.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.shared import quietly


@dataclass(frozen=True)
class Sizes:
    """How much work there is: numbers of files, except where said."""

    tree: int = 100_000
    archive: int = 10_000
    small: int = 10_000
    large: int = 256
    """MiB in one file."""
    repository: int = 3000
    project: int = 150
    packages: int = 20
    """Each of 100 files."""
    transactions: int = 10_000

    @classmethod
    def quick(cls) -> Sizes:
        """Return sizes that show whether all works."""
        return cls(5000, 6000, 500, 32, 300, 10, 2, 300)


@dataclass(frozen=True)
class Step:
    """A part of a workload that is timed; what it prints has to be the same on all file systems."""

    name: str
    script: str
    """For bash, in the mount. $LAYERS holds the layers, by name."""
    by_fio: bool = False
    """Whether it prints fio's report, whose time counts: fio itself takes long to start."""

    def seconds(self, output: str, elapsed: float) -> float:
        """Return the time that counts."""
        if not self.by_fio:
            return elapsed
        (job,) = json.loads(output)["jobs"]
        return float(max(job["read"]["runtime"], job["write"]["runtime"])) / 1000


@dataclass(frozen=True)
class Workload:
    """Steps one after the other in one mount, which is new and has nothing cached."""

    key: str
    """What --only names; workloads of one kind share it."""
    title: str
    layers: tuple[str, ...]
    """Topmost first; a name may stand for several."""
    steps: tuple[Step, ...]
    inputs: tuple[str, ...] = ()
    """What is needed in $LAYERS but not mounted."""


class Layers:
    """The layers, each made when it is first asked for."""

    def __init__(self, directory: Path, image: Path, sizes: Sizes) -> None:
        self.directory = directory
        self._image = image
        self._sizes = sizes

    def __call__(self, name: str) -> list[Path]:
        """Return the directories that a name stands for, topmost first."""
        place = self.directory / name
        if not place.exists():
            place.mkdir()
            if name == "debian":
                _unpack(self._image, place)
            else:
                _MAKERS[name](place, self._sizes)
            # The first contestant is not to read from the disk what the others find in memory.
            quietly("bash", "-c", 'tar -cC "$0" . | cat >/dev/null', place)
        return sorted(place.iterdir()) if name in ("debian", "deep") else [place]


def _unpack(layout: Path, place: Path) -> None:
    """Unpack the image's layers as `rl pull` does; 0 is the topmost."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
    config = json.loads(blob(manifest["config"]["digest"]).read_text())
    ids = config["rootfs"]["diff_ids"]
    for number, (layer, diff_id) in enumerate(zip(manifest["layers"], ids, strict=True), 1):
        directory = place / str(len(ids) - number)
        directory.mkdir()
        command = [sys.executable, "-m", "rootless.images.layer", directory, diff_id]
        with blob(layer["digest"]).open("rb") as stream:
            subprocess.run([*command, layer["mediaType"]], stdin=stream, check=True)


def _files(place: Path, count: int, per_directory: int, size: int = 20) -> None:
    """Make files of random sizes around `size`, the same ones each time."""
    dice = random.Random(count)
    for first in range(0, count, per_directory):
        directory = place / f"{first // per_directory // 20}" / f"{first // per_directory % 20}"
        directory.mkdir(parents=True)
        for number in range(min(per_directory, count - first)):
            content = dice.randbytes(8) * dice.randint(1, size // 4)
            (directory / f"file{number}").write_bytes(content)


def _archive(place: Path, sizes: Sizes) -> None:
    _files(place / "content", sizes.archive, 100, 4096)
    quietly("tar", "-cf", place / "archive.tar", "-C", place / "content", ".")


def _large(place: Path, sizes: Sizes) -> None:
    with (place / "large").open("wb") as file:
        for _ in range(sizes.large):
            file.write(os.urandom(1 << 20))


def _deep(place: Path, sizes: Sizes) -> None:
    for layer in range(50):
        for directory in range(10):
            path = place / f"{layer:02}" / f"d{directory}"
            path.mkdir(parents=True)
            for number in range(10):
                (path / f"f{layer}-{number}").touch()


def _repository(place: Path, sizes: Sizes) -> None:
    repository = place / "repository"
    git = ("git", "-C", repository, "-c", "user.name=n", "-c", "user.email=e", "-c", "gc.auto=0")
    _files(repository, sizes.repository, 50, 2000)
    quietly(*git, "init", "-q")
    for commit in range(5):
        for path in sorted(repository.glob("*/*/file7")):
            path.write_text(f"changed in {commit}\n")
        quietly(*git, "add", "-A")
        quietly(*git, "commit", "-qm", str(commit))
    quietly(*git, "gc", "-q")


def _library(place: Path, sizes: Sizes) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "config-*")
    source = sysconfig.get_path("stdlib", vars={"installed_base": "/usr"})
    shutil.copytree(source, place / "lib", symlinks=True, ignore=ignored)


def _project(place: Path, sizes: Sizes) -> None:
    count = sizes.project
    for number in range(count):
        included = "".join(f'#include "f{(number + step) % count}.h"\n' for step in range(10))
        body = "    for (int i = 0; i < n; i++) printf(FORMAT, i, strlen(FORMAT));\n" * 5
        rest = f"return n ? f{(number + 1) % count}(n - 1) : 0;"
        (place / f"f{number}.h").write_text(f"#pragma once\nint f{number}(int n);\n")
        (place / f"f{number}.c").write_text(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
            f'{included}#define FORMAT "{number} %d %zu\\n"\n'
            f"int f{number}(int n) {{\n{body}    {rest}\n}}\n"
        )
    (place / "main.c").write_text('#include "f0.h"\nint main(void) { return f0(0); }\n')
    (place / "Makefile").write_text(
        "CFLAGS = -O1 -pipe\nOBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\n"
        "program: $(OBJECTS)\n\t$(CC) -o $@ $^\n%.o: %.c $(wildcard *.h)\n"
    )


def _packages(place: Path, sizes: Sizes) -> None:
    for number in range(sizes.packages):
        name = f"benchmark{number}"
        root = place / name
        _files(root / "opt" / name, 100, 25, 4096)
        control = root / "DEBIAN/control"
        control.parent.mkdir()
        control.write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: -\n"
        )
        script = control.with_name("postinst")
        script.write_text(f"#!/bin/sh\nln -s {name} /opt/{name}.link\n")
        script.chmod(0o755)
        quietly("dpkg-deb", "--root-owner-group", "-Znone", "-b", root, place / f"{name}.deb")


_MAKERS: dict[str, Callable[[Path, Sizes], None]] = {
    "archive": _archive,
    "deep": _deep,
    "empty": lambda place, sizes: None,
    "large": _large,
    "library": _library,
    "packages": _packages,
    "project": _project,
    "repository": _repository,
    "tree": lambda place, sizes: _files(place, sizes.tree, 100),
}


def _python(code: str) -> str:
    return f"/usr/bin/python3 -I -c {shlex.quote(textwrap.dedent(code))}"


def _create(directory: str, count: int) -> str:
    return _python(f"""
        import os
        os.mkdir({directory!r})
        for number in range({count}):
            if number % 1000 == 0:
                os.mkdir(f"{directory}/{{number // 1000}}")
            with open(f"{directory}/{{number // 1000}}/{{number}}", "wb") as file:
                file.write(b"x" * 1000)
        """)


def _transactions(count: int, pragmas: tuple[str, ...]) -> str:
    return _python(f"""
        import sqlite3
        database = sqlite3.connect("database", isolation_level=None)
        for pragma in {pragmas}:
            database.execute(f"pragma {{pragma}}")
        database.execute("create table t (number int, text text)")
        for number in range({count}):
            database.execute("insert into t values (?, ?)", (number, "x" * 100))
        print(database.execute("select count(*) from t").fetchone())
        print(database.execute("pragma integrity_check").fetchone())
        """)


_LOOKUPS = _python("""
    import os
    found = 0
    for directory in range(10):
        for layer in range(50):
            for number in range(20):  # every second one is in no layer
                found += os.path.exists(f"d{directory}/f{layer}-{number}")
    print(found)
    """)

_MIX = """
    jobs=()
    start() { "$@" >/dev/null & jobs+=($!); }
    read_all() { tar -cf - "$1" | cat; }
    start find usr -printf '%p %s %T@\\n'
    start find usr var -name '*.py' -printf '%p %s\\n'
    start read_all usr/bin
    start read_all usr/lib
    mkdir new new/files
    start cp -a usr/share/doc new/doc
    start tar -xf "$LAYERS/archive/archive.tar" -C new/files ./1
    start rm -r content/2
    start CREATE
    for job in "${jobs[@]}"; do wait "$job"; done
    find new content | wc -l
    """

_FIND = "find . -printf '%p %y %m %U %G %s %T@\\n' | wc -l"
_READ = "tar -cf - . | wc -c"


def _large_file(sizes: Sizes) -> list[Workload]:
    """Return each way of going through a large file; each in its own, cold mount."""
    found = []
    for pattern, order in (("", "sequential"), ("rand", "random")):
        for block, unit in (("4k", "4 KiB"), ("1m", "1 MiB")):
            for kind, sync in (("read", 0), ("write", 0), ("write", 1)):
                # What goes through the server block by block gets less to do.
                share = 1 if block == "1m" else 16 if sync else 4 if pattern else 1
                command = (
                    f"fio --name=large --filename=large --rw={pattern}{kind} --bs={block} "
                    f"--size={sizes.large}m --io_size={sizes.large * 1024 // share}k "
                    "--ioengine=psync --invalidate=0 --fallocate=none --randseed=1 "
                    f"--fsync={sync} --output-format=json"
                )
                title = f"{order} {kind}, {unit}{', each with fsync' if sync else ''}"
                layer = "large" if kind == "read" else "empty"
                found.append(Workload("large", title, (layer,), (Step("", command, by_fio=True),)))
    return found


def workloads(sizes: Sizes) -> list[Workload]:
    """Return all workloads."""
    count = sizes.small
    clone = "repository clone; git -C clone rev-parse HEAD"
    mix = _MIX.replace("CREATE", _create("new/small", count // 8))
    install = (
        'dpkg --root="$PWD" --log="$PWD/var/log/dpkg.log" -i "$LAYERS"/packages/*.deb >/dev/null'
        "; find opt -name '*.link' | wc -l"
    )
    return [
        Workload("find", "find, a Debian", ("debian",), (Step("cold", _FIND), Step("warm", _FIND))),
        Workload(
            "find",
            f"find, {sizes.tree} files",
            ("tree",),
            (Step("cold", _FIND), Step("warm", _FIND)),
        ),
        Workload(
            "read",
            "read every file, a Debian",
            ("debian",),
            (Step("cold", _READ), Step("warm", _READ)),
        ),
        Workload(
            "extract",
            f"extract {sizes.archive} files",
            ("empty",),
            (Step("", 'tar -xf "$LAYERS/archive/archive.tar"'),),
            inputs=("archive",),
        ),
        Workload(
            "small",
            f"{count} small files",
            ("empty",),
            (Step("create, write, close", _create("new", count)), Step("remove", "rm -r new")),
        ),
        Workload("rm", "rm -rf, a Debian's /usr", ("debian",), (Step("", "rm -rf usr; ls"),)),
        *_large_file(sizes),
        Workload("deep", "10,000 lookups, 50 layers", ("deep",), (Step("", _LOOKUPS),)),
        Workload(
            "git",
            f"git, {sizes.repository} files",
            ("repository",),
            (
                Step("status, cold", "git -C repository status --porcelain"),
                Step("status, warm", "git -C repository status --porcelain"),
                Step("clone --no-hardlinks", f"git clone -q --no-hardlinks {clone}"),
                # Last: overlayfs gives a lower file another inode when it is linked, git says no.
                Step("clone", f"git clone -q {clone.replace('clone', 'linked')}"),
            ),
        ),
        Workload(
            "compileall",
            "compileall, the standard library",
            ("library",),
            (Step("", "/usr/bin/python3 -I -m compileall -q lib; find . -name '*.pyc' | wc -l"),),
        ),
        Workload(
            "gcc",
            f"make, {sizes.project} C files",
            ("project",),
            (Step("", "make -s -j2; ls | wc -l"),),
        ),
        Workload(
            "dpkg",
            f"dpkg -i, {sizes.packages} packages",
            ("debian",),
            (Step("", install),),
            inputs=("packages",),
        ),
        *(
            Workload(
                "sqlite",
                f"SQLite, {number} transactions, {' '.join(pragmas)}",
                ("empty",),
                (Step("", _transactions(number, pragmas)),),
            )
            for number, pragmas in (
                (sizes.transactions, ("journal_mode=wal", "synchronous=normal")),
                # Each of these creates a journal and removes it.
                (sizes.transactions // 5, ("journal_mode=delete", "synchronous=off")),
            )
        ),
        Workload("mix", "8 processes at once", ("archive", "debian"), (Step("", mix),)),
    ]
