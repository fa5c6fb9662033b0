"""`rl system df` and the prune commands: what takes disk, and what goes when it is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl

KB = 1000


@pytest.fixture(scope="module")
def sized(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that makes an image with a file of 300 kB that compresses to nothing."""

    def make(name: str) -> str:
        layout = tmp_path_factory.mktemp(name)
        images.busybox(layout, {name: b"x" * 300 * KB})
        registry.push(f"oci:{layout}:latest", f"tests/{name}")
        return f"{registry.host}/tests/{name}"

    return make


def table(rl: Rl) -> dict[str, list[str]]:
    """Return the rows of system df."""
    template = "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}"
    rows = rl("system", "df", "--format", template).stdout.splitlines()
    return {row.split("|")[0]: row.split("|")[1:] for row in rows}


def on_disk(rl: Rl) -> int:
    """Return the bytes of all files below images/ and layers/, but for the indexes."""
    paths = [*(rl.root / "images/blobs").rglob("*"), *(rl.root / "layers").rglob("*")]
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    return sum({path.stat().st_ino: path.stat().st_size for path in files}.values())


def test_images_are_shown_as_large_as_they_are_unpacked(
    fresh_rl: Rl, sized: Callable[[str], str]
) -> None:
    name = sized("large")
    fresh_rl("pull", "-q", name, "alpine")
    sizes = dict(
        line.split()
        for line in fresh_rl("images", "--format", "{{.Repository}} {{.Size}}").stdout.splitlines()
    )
    large, small = (
        int(fresh_rl("inspect", "-f", "{{.Size}}", image).stdout) for image in (name, "alpine")
    )
    assert large - small == 300 * KB - len("hello from busybox\n")
    assert sizes[name].endswith("MB")
    assert float(sizes[name][:-2]) == pytest.approx(large / 1e6, rel=0.01)


def test_df_counts_what_is_on_disk_and_shared_once(
    fresh_rl: Rl, sized: Callable[[str], str]
) -> None:
    one, two = sized("one"), sized("two")
    assert table(fresh_rl)["Images"] == ["0", "0", "0B", "0B"]
    fresh_rl("pull", "-q", one, two)
    fresh_rl("run", "--name", "writer", "-v", "kept:/v", one, "sh", "-c",
             "head -c 50000 /bin/busybox > /f; head -c 70000 /bin/busybox > /v/f")  # fmt: skip
    try:
        found = table(fresh_rl)
        assert found["Images"][:2] == ["2", "1"]
        assert float(found["Images"][2].removesuffix("MB")) == pytest.approx(
            on_disk(fresh_rl) / 1e6, rel=0.01
        )
        # Only what no container needs: the other's file and its documents.
        assert found["Images"][3].startswith("301kB (") or found["Images"][3].startswith("302kB (")
        assert found["Containers"] == ["1", "0", "50kB", "50kB (100%)"]
        assert found["Local Volumes"] == ["1", "1", "70kB", "0B (0%)"]
        whole = int(fresh_rl("inspect", "-f", "{{.Size}}", one).stdout) + 50000
        form = "{{.SizeRw}} {{.SizeRootFs}}"
        assert fresh_rl("inspect", "-s", "-f", form, "writer").stdout == f"50000 {whole}\n"
        details = fresh_rl("system", "df", "-v").stdout
        assert "tests/one" in details
        assert details.count("kept ") == 1
        shown = fresh_rl("system", "df").stdout.splitlines()
        assert shown[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    finally:
        fresh_rl("rm", "writer")


def test_an_image_has_one_size_wherever_it_is_shown(
    fresh_rl: Rl, sized: Callable[[str], str]
) -> None:
    one, two = sized("first"), sized("second")
    fresh_rl("pull", "-q", one, two)
    shown = fresh_rl("images", "--format", "{{.Repository}} {{.Size}}").stdout
    details = fresh_rl("system", "df", "-v").stdout.splitlines()
    for line in shown.splitlines():
        name, size = line.split()
        (row,) = [row.split() for row in details if row.startswith(f"{name} ")]
        # … CREATED, of one word or several, SIZE, SHARED SIZE, UNIQUE SIZE, CONTAINERS
        assert row[-4] == size
        assert row[-2:] == ["300kB", "0"]


def test_image_prune_removes_what_has_no_tag_or_all_that_no_container_has(
    fresh_rl: Rl, registry: Registry, sized: Callable[[str], str], tmp_path: Path
) -> None:
    used, unused = sized("used"), sized("unused")
    fresh_rl("pull", "-q", used, unused)
    fresh_rl("create", "--name", "holder", used, "true")
    try:
        assert "reclaimed space: 0B" in fresh_rl("image", "prune", "-f").stdout
        # A name that means another image now leaves the old one without a tag.
        images.busybox(tmp_path, {"other": "x"})
        registry.push(f"oci:{tmp_path}:latest", "tests/unused")
        fresh_rl("pull", "-q", unused)
        before = on_disk(fresh_rl)
        pruned = fresh_rl("image", "prune", "-f").stdout
        assert pruned.startswith("Deleted Images:\n")
        assert "deleted: sha256:" in pruned
        freed = before - on_disk(fresh_rl)
        assert freed > 300 * KB
        assert f"Total reclaimed space: {freed / 1000:.3g}kB\n" in pruned
        fresh_rl("pull", "-q", "alpine")
        pruned = fresh_rl("image", "prune", "-a", "-f").stdout
        assert "untagged: alpine:latest" in pruned
        assert fresh_rl("images", "-q").stdout.count("\n") >= 1
        assert fresh_rl("start", "-a", "holder").returncode == 0
    finally:
        fresh_rl("rm", "holder")
    fresh_rl("image", "prune", "-a", "-f")
    assert fresh_rl("images", "-q").stdout == ""
    assert on_disk(fresh_rl) == 0


def test_image_prune_chooses_by_label_and_age(
    fresh_rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    images.busybox(tmp_path, {"f": "x"}, {"Labels": {"keep": "me"}})
    registry.push(f"oci:{tmp_path}:latest", "tests/labelled")
    fresh_rl("pull", "-q", f"{registry.host}/tests/labelled", "alpine")
    done = fresh_rl("image", "prune", "-a", "-f", "--filter", "label=other")
    assert done.stdout == "Total reclaimed space: 0B\n"
    fresh_rl("image", "prune", "-a", "-f", "--filter", "label!=keep")
    assert "labelled" in fresh_rl("images").stdout
    assert "alpine" not in fresh_rl("images").stdout
    wrong = fresh_rl("image", "prune", "-f", "--filter", "size=1", check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (125, 1)


def test_system_prune_removes_containers_then_their_images_and_asks_first(
    fresh_rl: Rl, sized: Callable[[str], str]
) -> None:
    name = sized("pruned")
    fresh_rl("run", "--name", "ended", "-v", "/anonymous", "-v", "named:/n", name, "sh", "-c",
             "head -c 50000 /bin/busybox > /f")  # fmt: skip
    fresh_rl("run", "-d", "--name", "lives", "alpine", "sleep", "100000")
    try:
        asked = fresh_rl("system", "prune", "-a", "--volumes", input="n\n")
        for line in ("WARNING! This will remove:", "- all stopped containers",
                     "- all anonymous volumes", "- all images without"):  # fmt: skip
            assert line in asked.stdout
        assert "reclaimed" not in asked.stdout
        kept = fresh_rl("system", "prune", "-f", "--filter", "until=24h")
        assert kept.stdout == "Total reclaimed space: 0B\n"
        pruned = fresh_rl("system", "prune", "-a", "--volumes", "-f").stdout
        assert "Deleted Containers:" in pruned
        assert "Deleted Volumes:" in pruned
        assert "Deleted Images:" in pruned
        assert pruned.count("Total reclaimed space: ") == 1
        assert fresh_rl("ps", "-a", "--format", "{{.Names}}").stdout == "lives\n"
        assert fresh_rl("images", "--format", "{{.Repository}}").stdout == "alpine\n"
        assert fresh_rl("volume", "ls", "-q").stdout == "named\n"
        assert fresh_rl("exec", "lives", "echo", "well").stdout == "well\n"
    finally:
        fresh_rl("rm", "-f", "lives")


def test_limit_for_images_takes_those_not_used_for_longest_and_none_in_use(
    fresh_rl: Rl, sized: Callable[[str], str]
) -> None:
    first, second, third, fourth = (sized(name) for name in ("first", "second", "third", "fourth"))
    file = fresh_rl.directory / "home/.config/rl/config.toml"
    file.parent.mkdir(parents=True)
    for name in (first, second, third):
        fresh_rl("pull", "-q", name)
    limit = on_disk(fresh_rl) + 100 * KB
    fresh_rl("create", "--name", "holder", second, "true")
    # Used once more: now the second, which a container has, was not used for longer than these.
    fresh_rl("run", "--rm", first, "true")
    fresh_rl("rm", "holder")
    fresh_rl("create", "--name", "holder", second, "true")
    fresh_rl("run", "--rm", first, "true")
    file.write_text(f'[images]\nlimit = "{limit}"\n')
    try:
        done = fresh_rl("pull", "-q", fourth)
        assert "untagged: " in done.stderr
        left = {name.rpartition("/")[2] for name in
                fresh_rl("images", "--format", "{{.Repository}}").stdout.split()}  # fmt: skip
        assert left == {"first", "second", "fourth"}
        assert on_disk(fresh_rl) <= limit
        file.write_text('[images]\nlimit = "1k"\n')
        done = fresh_rl("run", "--rm", "--pull", "always", "-q", first, "true")
        left = {name.rpartition("/")[2] for name in
                fresh_rl("images", "--format", "{{.Repository}}").stdout.split()}  # fmt: skip
        assert left == {"first", "second"}
        assert "more than 1.02kB: containers have them" in done.stderr
        file.write_text("[images]\nlimits = 1\n")
        assert "has no limits" in fresh_rl("pull", "-q", first, check=False).stderr
    finally:
        fresh_rl("rm", "holder")
