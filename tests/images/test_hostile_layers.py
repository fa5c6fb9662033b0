"""Hostile layers are unpacked inside the layer's root or refused in one line.

Every archive is written here. Nothing else ever changes: see `place`.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless.errors import RlError
from rootless.images import layer
from rootless.kernel import userns
from tests.images.archives import (
    TAR,
    Format,
    Member,
    archive,
    device,
    directory,
    entry,
    hardlink,
    names,
    opaques,
    symlink,
    whiteouts,
)
from tests.images.place import Place

UP = "../" * 20


@pytest.mark.parametrize("name", ["../x", "a/../../x", f"{UP}tmp/x", "/..", "..", "a/b/../../.."])
@pytest.mark.parametrize(
    "make", [entry, directory, lambda name: symlink(name, "x"), lambda name: hardlink(name, "ok")]
)
def test_a_name_that_climbs_out_is_refused(
    place: Place, name: str, make: Callable[[str], Member]
) -> None:
    assert "leads out of the layer" in place.refuse(archive(entry("ok"), make(name)))


def test_dots_that_stay_inside_are_resolved(place: Place) -> None:
    tree = place.unpack(archive(entry("a/../b/./c"), entry("./d//e")))
    assert names(tree) == {"b", "b/c", "d", "d/e"}


def test_absolute_names_begin_at_the_layers_root(place: Place) -> None:
    inside = str(place.canary)[1:]
    tree = place.unpack(archive(entry(f"{place.canary}/file", b"x"), directory("//var")))
    assert tree[os.fsencode(f"{inside}/file")].content == b"x"
    assert "var" in names(tree)


@pytest.mark.parametrize("up", ["/", UP])
def test_a_file_behind_a_symlink_that_leads_out_is_refused(place: Place, up: str) -> None:
    target = f"{up}{str(place.canary)[1:]}"
    line = place.refuse(archive(symlink("out", target), entry("out/file", b"x")))
    assert "its parent is a symbolic link to" in line


@pytest.mark.parametrize("up", ["/", UP])
def test_a_symlink_that_leads_out_leads_to_the_layers_own_directory(place: Place, up: str) -> None:
    inside = str(place.canary)[1:]
    tree = place.unpack(
        archive(
            directory(inside),
            symlink("out", f"{up}{inside}"),
            entry("out/file", b"x"),
            directory("out/made", mode=0o700),
            entry("out/.wh.gone"),
            hardlink("out/link", "out/file"),
        )
    )
    assert tree[os.fsencode(f"{inside}/file")].content == b"x"
    assert tree[os.fsencode(f"{inside}/made")].mode == 0o700
    assert whiteouts(tree) == {f"{inside}/gone"}
    assert tree[b"out"].kind == stat.S_IFLNK


def test_what_keeps_a_layer_inside_is_the_root_of_who_unpacks_it(tmp_path: Path) -> None:
    def attack(canary: Path, *, confined: bool) -> bool:
        data = archive(symlink("out", str(canary)), entry("out/made", b"x"))
        for made in (canary, canary.with_name("layer")):
            made.mkdir(parents=True)
        file = canary.with_name("archive")
        file.write_bytes(data)

        def here() -> None:
            if not confined:
                os.chroot = lambda path: None
            with suppress(RlError):
                layer.unpack(os.open(file, os.O_RDONLY), str(file.with_name("layer")), "", TAR)

        # In a process that ends with it.
        userns.call(here)
        return (canary / "made").exists()

    assert not attack(tmp_path / "confined/canary", confined=True)
    assert attack(tmp_path / "unconfined/canary", confined=False)


@pytest.mark.parametrize("up", ["/", UP])
@pytest.mark.parametrize("again", [entry, directory])
def test_an_entry_named_as_a_symlink_replaces_it(
    place: Place, up: str, again: Callable[[str], Member]
) -> None:
    target = f"{up}{str(place.canary)[1:]}"
    tree = place.unpack(archive(symlink("out", f"{target}/file"), again("out")))
    assert tree[b"out"].kind == stat.S_IFMT(stat.S_IFREG if again is entry else stat.S_IFDIR)


def test_a_directory_replaced_by_a_symlink_does_not_lead_out(place: Place) -> None:
    members = [directory("a"), directory("a/b"), entry("a/b/c"), symlink("a", str(place.canary))]
    line = place.refuse(archive(*members, entry("a/file", b"x")))
    assert "its parent is a symbolic link" in line
    assert names(place.unpack(archive(*members))) == {"a"}


@pytest.mark.parametrize(
    "target", ["/canary/file", "canary/file", "via/file", "nothing", "", "/", "."]
)
def test_a_hard_link_to_what_the_layer_lacks_is_refused(place: Place, target: str) -> None:
    target = target.replace("canary", str(place.canary)[1:])
    line = place.refuse(archive(symlink("via", str(place.canary)), hardlink("x", target)))
    assert "a hard link to" in line


def test_a_hard_link_to_itself_is_refused(place: Place) -> None:
    assert "a hard link to itself" in place.refuse(archive(entry("a"), hardlink("./a", "a")))


def test_a_hard_link_to_a_directory_is_refused(place: Place) -> None:
    place.refuse(archive(directory("d"), hardlink("x", "d")))


def test_a_hard_link_to_a_symlink_links_the_symlink(place: Place) -> None:
    tree = place.unpack(archive(symlink("s", f"{place.canary}/file"), hardlink("x", "s")))
    assert tree[b"x"].kind == stat.S_IFLNK
    assert (place.canary / "file").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["../file", UP + "canary/file"])
def test_a_hard_link_that_climbs_out_is_refused(place: Place, target: str) -> None:
    assert "leads out of the layer" in place.refuse(archive(hardlink("x", target)))


def test_an_entry_named_as_a_hard_link_leaves_the_other_name_alone(place: Place) -> None:
    tree = place.unpack(archive(entry("a", b"1"), hardlink("b", "a"), entry("b", b"22")))
    assert (tree[b"a"].content, tree[b"b"].content) == (b"1", b"22")


def test_no_device_node_is_made_and_none_becomes_a_whiteout(place: Place) -> None:
    tree = place.unpack(
        archive(
            device("dev/null", tarfile.CHRTYPE, 1, 3),
            device("dev/sda", tarfile.BLKTYPE, 8, 0),
            device("etc/shadow", tarfile.CHRTYPE, 0, 0),
            device("dev/huge", tarfile.CHRTYPE, 0o777777, 0o777777),
            entry("kept"),
        )
    )
    assert names(tree) == {"kept"}


@pytest.mark.parametrize(
    "name",
    [
        *("user.overlay.opaque", "user.overlay.redirect", "user.overlay.metacopy"),
        *("user.overlay.whiteout", "user.fuseoverlayfs.opaque", "user.containers.override_stat"),
        *("trusted.overlay.opaque", "system.posix_acl_access", "security.selinux"),
    ],
)
def test_attributes_that_steer_an_overlay_or_this_machine_are_left_out(
    place: Place, name: str
) -> None:
    headers = {f"SCHILY.xattr.{name}": "y", "SCHILY.xattr.user.mine": "1"}
    members = [entry("f", pax_headers=headers), directory("d", pax_headers=headers)]
    tree = place.unpack(archive(*members))
    assert tree[b"f"].xattrs == tree[b"d"].xattrs == {"user.mine": b"1"}


def test_an_attribute_that_cannot_be_set_is_refused(place: Place) -> None:
    headers = {"SCHILY.xattr.security.capability": "nonsense"}
    line = place.refuse(archive(entry("f", pax_headers=headers)))
    assert "'f': cannot set its attribute 'security.capability'" in line


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh.."])
def test_a_whiteout_of_no_name_is_refused(place: Place, name: str) -> None:
    assert "a whiteout of no name" in place.refuse(archive(entry(name)))


@pytest.mark.parametrize("name", [".wh.a/b", "x/.wh.a/.wh.b", ".wh../x", ".wh.a/.wh..wh..opq"])
def test_a_whiteout_with_entries_below_is_refused(place: Place, name: str) -> None:
    assert "a whiteout cannot have entries below it" in place.refuse(archive(entry(name)))


def test_a_whiteout_of_a_parent_spares_this_layers_files(place: Place) -> None:
    members = [entry("a/b/c", b"x"), entry("a/.wh.b"), entry(".wh.a")]
    tree = place.unpack(archive(*members))
    assert tree[b"a/b/c"].content == b"x"
    assert (whiteouts(tree), opaques(tree)) == (set(), {"a", "a/b"})


def test_whiteouts_through_files_and_links_touch_nothing_else(place: Place) -> None:
    members = [entry("f", b"x"), entry("f/.wh.y"), entry("f/.wh..wh..opq"), symlink("s", "d")]
    members += [directory("d"), entry("d/kept"), entry("s/.wh..wh..opq"), entry("s/.wh.kept")]
    tree = place.unpack(archive(*members))
    assert names(tree) == {"f", "s", "d", "d/kept"}
    assert tree[b"f"].content == b"x"
    assert whiteouts(tree) == set()


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(
    "name", ["n" * 256, "/".join(["d" * 200] * 30), "ok/" + "n" * 300 + "\n\x1b[2J"]
)
def test_a_name_that_is_too_long_is_refused(place: Place, name: str, style: Format) -> None:
    assert "File name too long" in place.refuse(archive(entry(name), style=style))


def test_a_name_with_a_nul_byte_is_refused(place: Place) -> None:
    headers = {"path": "a\0b"}
    assert "a NUL byte" in place.refuse(archive(entry("a", pax_headers=headers)))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", [".", "/", "a/.."])
def test_the_root_can_only_be_a_directory(place: Place, name: str, kind: bytes) -> None:
    line = place.refuse(archive(entry(name, type=kind, linkname="x")))
    assert "the layer's root can only be a directory" in line


@pytest.mark.parametrize("field", ["uid", "gid"])
@pytest.mark.parametrize("number", [70_000, 2**31, 2**32 - 2])
def test_an_owner_outside_the_users_range_is_refused_and_the_remedy_named(
    place: Place, field: str, number: int
) -> None:
    fields: dict[str, Any] = {field: number}
    line = place.refuse(archive(entry("f", **fields)))
    assert str(number) in line
    assert f"/etc/sub{field}" in line


@pytest.mark.parametrize("number", [2**32 - 1, 2**32, 2**64, -1])
def test_an_owner_that_is_no_id_is_refused(place: Place, number: int) -> None:
    line = place.refuse(archive(entry("f", pax_headers={"uid": str(number)})))
    assert "is not a user or group id" in line


@pytest.mark.parametrize("time", ["nan", "inf", "1e300", "-", "1,5"])
def test_a_time_that_is_no_time_is_refused(place: Place, time: str) -> None:
    place.refuse(archive(entry("f", pax_headers={"mtime": time})))


@pytest.mark.parametrize("time", ["9" * 18, "-" + "9" * 18])
def test_a_time_beyond_what_the_disk_keeps_is_brought_near(place: Place, time: str) -> None:
    assert names(place.unpack(archive(entry("f", pax_headers={"mtime": time})))) == {"f"}


FRAGMENTS = st.sampled_from(
    ["..", ".", "", "a", "b", "c", "out", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.x", "..a"]
)
NAMES = st.lists(FRAGMENTS, min_size=1, max_size=4).map("/".join)
TARGETS = st.one_of(NAMES, st.sampled_from([UP + "CANARY", "CANARY", "CANARY/file", "/a", UP]))
KINDS = st.sampled_from(
    [
        *(tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE),
        *(tarfile.FIFOTYPE, tarfile.CHRTYPE),
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, KINDS, TARGETS), min_size=1, max_size=12))
def test_no_sequence_of_entries_reaches_the_canary(
    place: Place, members: list[tuple[str, bytes, str]]
) -> None:
    canary = str(place.canary)
    data = archive(
        *(
            entry(
                name,
                b"x" if kind == tarfile.REGTYPE else b"",
                type=kind,
                linkname=target.replace("CANARY", canary),
                mode=0o4777,
            )
            for name, kind, target in members
        )
    )
    try:
        tree = place.unpack(data)
    except RlError:
        return
    assert all(node.device == 0 for node in tree.values())
    assert not any(b".wh." in name for name in tree)
