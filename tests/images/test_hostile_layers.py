"""Hostile layers are unpacked inside the layer's root or refused in one line.

Every archive is written here. Nothing else ever changes: beside the store lies a
canary directory that a way out would reach, by absolute path and by ``..``.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless.errors import RlError
from rootless.kernel import userns
from rootless.trees import remove_tree
from tests.images.archives import (
    TAR,
    Format,
    Member,
    Tree,
    archive,
    device,
    directory,
    entry,
    hardlink,
    names,
    opaques,
    raw,
    sha256,
    snapshot,
    symlink,
    unpack,
    whiteouts,
)


class Place:
    """A store and, beside it, a canary that must not change."""

    def __init__(self, base: Path) -> None:
        self.store = base / "store"
        self.canary = base / "canary"
        self.canary.mkdir(parents=True)
        (self.canary / "file").write_text("untouched")
        (self.canary / "empty").mkdir()
        self.before = snapshot(self.canary)

    def unpack(
        self,
        data: bytes,
        media_type: str = TAR,
        diff_id: str | None = None,
        contents: bool = True,
    ) -> Tree:
        try:
            return unpack(self.store, data, media_type, diff_id, contents)
        finally:
            assert snapshot(self.canary) == self.before
            assert set(os.listdir(self.canary.parent)) == {"canary", "store"}
            assert os.listdir(self.store / "tmp") == []

    def refuse(self, data: bytes, media_type: str = TAR, diff_id: str | None = None) -> str:
        """Return the line by which the layer is refused; nothing of it may be in the store."""
        with pytest.raises(RlError) as raised:
            self.unpack(data, media_type, diff_id)
        assert os.listdir(self.store / "layers") == []
        line = str(raised.value)
        assert line.isprintable()
        assert line.startswith(f"cannot unpack layer {(diff_id or sha256(data))[:19]}: ")
        return line.split(": ", 1)[1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "base")
    yield place
    userns.call(remove_tree, place.store)


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


def claim(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header that claims ``size`` bytes of content, and a little of it."""
    member, _ = entry("big", type=kind)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(700)


@pytest.mark.parametrize("size", [1 << 20, 1 << 40, 2**63 - 1, 2**80])
def test_a_file_that_claims_more_than_there_is_is_refused(place: Place, size: int) -> None:
    assert "the archive ends in the middle of it" in place.refuse(claim(size))


def test_a_negative_size_is_refused(place: Place) -> None:
    place.refuse(claim(-512) + archive(entry("x")))


@pytest.mark.parametrize(
    "kind",
    [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK],
)
@pytest.mark.parametrize("size", [(1 << 20) + 1, 1 << 40])
def test_a_header_that_claims_too_much_is_refused(place: Place, kind: bytes, size: int) -> None:
    assert "header of" in place.refuse(claim(size, kind))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_negative_size_is_refused(place: Place, kind: bytes) -> None:
    # By us or, in newer versions, by tarfile: the words differ, not what is left behind.
    place.refuse(claim(-512, kind))


def test_a_header_that_is_too_big_is_refused_before_it_fills_the_memory(place: Place) -> None:
    member = entry("f", pax_headers={"comment": "x" * (64 << 20)})
    data = archive(member)
    assert "header of" in place.refuse(gzip.compress(data, 1), TAR + "+gzip", sha256(data))


def test_headers_without_end_are_refused(place: Place) -> None:
    member, content = entry("ignored", b"name\0", type=tarfile.GNUTYPE_LONGNAME)
    place.refuse(raw((member, content)) * 3000 + archive(entry("x")))


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
        {"GNU.sparse.map": "0,1000000", "GNU.sparse.size": "1000000"},
        {"GNU.sparse.map": "-5,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,5", "GNU.sparse.size": "-1"},
        {"GNU.sparse.map": "0,x", "GNU.sparse.size": "1"},
        {"GNU.sparse.map": "5,5,0,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,5,8,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,-5,3,3", "GNU.sparse.size": "9"},
    ],
)
def test_a_sparse_map_that_makes_no_sense_is_refused(place: Place, headers: dict[str, str]) -> None:
    place.refuse(archive(entry("s", b"hello world" * 3, pax_headers=headers)))


def test_a_sparse_file_of_many_terabytes_takes_no_space(place: Place) -> None:
    headers = {"GNU.sparse.map": "0,5", "GNU.sparse.size": str(15 << 40)}
    data = archive(entry("s", b"hello", pax_headers=headers))
    node = place.unpack(data, contents=False)[b"s"]
    assert node.size == 15 << 40
    assert node.blocks < 100


@pytest.mark.parametrize("where", [0, 512, 1024])
def test_a_damaged_header_is_refused(place: Place, where: int) -> None:
    data = bytearray(archive(entry("a"), entry("b"), entry("c")))
    data[where + 3] ^= 0xFF
    place.refuse(bytes(data))


@pytest.mark.parametrize("kind", [b"M", b"V", b"D", b"Z"])
def test_an_entry_of_a_type_nobody_uses_is_refused(place: Place, kind: bytes) -> None:
    assert "not supported" in place.refuse(archive(entry("a", type=kind)))


def test_an_archive_cut_in_a_header_is_refused(place: Place) -> None:
    place.refuse(archive(entry("a"), entry("b"))[:700])


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "+gzip": gzip.compress,
    "+zstd": zstandard.compress,
}


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("cut", [1, 8, 1000])
def test_a_truncated_stream_is_refused(place: Place, suffix: str, cut: int) -> None:
    data = archive(entry("a", os.urandom(100_000)))
    place.refuse(COMPRESSED[suffix](data)[:-cut], TAR + suffix, sha256(data))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_damaged_stream_is_refused(place: Place, suffix: str) -> None:
    data = archive(entry("a", os.urandom(100_000)))
    packed = bytearray(COMPRESSED[suffix](data))
    packed[50_000:50_100] = bytes(100)
    place.refuse(bytes(packed), TAR + suffix, sha256(data))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_garbage_after_the_stream_is_refused(place: Place, suffix: str) -> None:
    data = archive(entry("a"))
    place.refuse(COMPRESSED[suffix](data) + b"garbage!", TAR + suffix, sha256(data))


@pytest.mark.parametrize("data", [b"garbage", b"\x1f\x8b", b"\x1f\x8bxxxx", os.urandom(5000)])
@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
def test_garbage_is_refused(place: Place, data: bytes, suffix: str) -> None:
    place.refuse(data, TAR + suffix)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_stream_that_is_not_of_its_media_type_is_refused(place: Place, suffix: str) -> None:
    data = archive(entry("a"))
    line = place.refuse(COMPRESSED[suffix](data), TAR, sha256(data))
    assert f"its content is {suffix[1:]}" in line
    assert "its content is tar" in place.refuse(data, TAR + suffix)


def test_a_layer_with_another_diff_id_is_refused(place: Place) -> None:
    line = place.refuse(archive(entry("a")), diff_id=sha256(b"something else"))
    assert "not what the image's configuration says" in line


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_decompression_bomb_is_refused(place: Place, suffix: str) -> None:
    zeros = COMPRESSED[suffix](bytes(64 << 20))
    member, _ = entry("bomb")
    member.size = 1 << 40
    header = COMPRESSED[suffix](member.tobuf(tarfile.GNU_FORMAT))
    line = place.refuse(header + zeros * 40, TAR + suffix)
    assert "a decompression bomb" in line


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
