"""Which package may import which: docs/architecture.md says that arrows go down only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rootless

HERE = Path(rootless.__file__).parent
BELOW_CONTAINERS = {
    "archive", "cgroups", "holder", "images", "kernel", "nameserver", "networks", "volumes",
}  # fmt: skip


def imported(directory: Path) -> Iterator[tuple[str, str]]:
    """Give each module below a directory with each that it imports, at any time."""
    for path in directory.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((str(path), name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((str(path), f"{node.module}.{name.name}") for name in node.names)


def up(directory: Path, *above: str) -> set[tuple[str, str]]:
    return {
        (path, name)
        for path, name in imported(directory)
        if any(f"{name}.".startswith(f"{one}.") for one in above)
    }


@pytest.mark.parametrize("package", sorted(BELOW_CONTAINERS))
def test_nothing_below_containers_imports_them(package: str) -> None:
    assert list(imported(HERE / package))
    assert not up(HERE / package, "rootless.containers", "rootless.cli")


def test_kernel_imports_no_other_package() -> None:
    others = BELOW_CONTAINERS - {"kernel"}
    assert not up(HERE / "kernel", "fuse_overlay", *(f"rootless.{name}" for name in others))


def test_containers_do_not_import_the_command_line() -> None:
    assert not up(HERE / "containers", "rootless.cli", "click")


def test_overlay_stands_alone() -> None:
    assert not up(HERE.parent / "fuse_overlay", "rootless")
