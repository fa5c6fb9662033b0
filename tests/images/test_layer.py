"""Layers as honest tools write them become the tree that they describe, in overlay form."""

from __future__ import annotations

import gzip
import itertools
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from rootless.kernel import userns
from rootless.trees import remove_tree
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
    raw,
    sha256,
    symlink,
    unpack,
    whiteouts,
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "store"
    userns.call(remove_tree, tmp_path / "store")


def pax(name: str, headers: dict[str, str], content: bytes = b"") -> Member:
    return entry(name, content, pax_headers=headers, mode=0o755)


def test_files_have_the_modes_owners_and_times_of_the_archive(root: Path) -> None:
    tree = unpack(
        root,
        archive(
            directory("./", mode=0o751, mtime=1),
            entry("sudo", b"#!", mode=0o6755, uid=0, gid=42, mtime=1_000_000_000),
            directory("tmp", mode=0o1777, uid=7, gid=8, mtime=2),
            entry("tmp/secret", b"x", mode=0, uid=65534, gid=65534, mtime=3),
            symlink("link", "/etc/passwd", uid=5, gid=6, mtime=4),
            entry("fifo", type=tarfile.FIFOTYPE, mode=0o622, uid=9, gid=9, mtime=5),
        ),
    )
    seen = {
        name.decode(): (node.kind, node.mode, node.uid, node.gid, node.mtime / 10**9)
        for name, node in tree.items()
    }
    assert seen == {
        ".": (stat.S_IFDIR, 0o751, 0, 0, 1),
        "sudo": (stat.S_IFREG, 0o6755, 0, 42, 1_000_000_000),
        "tmp": (stat.S_IFDIR, 0o1777, 7, 8, 2),
        "tmp/secret": (stat.S_IFREG, 0, 65534, 65534, 3),
        "link": (stat.S_IFLNK, 0o777, 5, 6, 4),
        "fifo": (stat.S_IFIFO, 0o622, 9, 9, 5),
    }
    assert tree[b"link"].target == b"/etc/passwd"
    assert tree[b"tmp/secret"].content == b"x"


def test_files_belong_to_the_users_subordinate_ids_on_the_host(root: Path) -> None:
    data = archive(entry("a", uid=0), entry("b", uid=1, gid=1))
    unpack(root, data)
    layer = root / "layers" / sha256(data)[7:]
    maps = userns.user_maps()
    assert (layer / "a").stat().st_uid == os.getuid()
    assert (layer / "b").stat().st_uid == maps.uids[1].outside
    assert (layer / "b").stat().st_gid == maps.gids[1].outside


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1234567890.123456789", 1234567890_123456789),
        ("1234567890.5", 1234567890_500000000),
        ("-1.25", -1_250000000),
        ("12", 12_000000000),
    ],
)
def test_pax_times_keep_their_nanoseconds(root: Path, text: str, nanoseconds: int) -> None:
    tree = unpack(root, archive(pax("a", {"mtime": text})))
    assert tree[b"a"].mtime == nanoseconds


def test_a_directory_keeps_its_time_whatever_comes_into_it_later(root: Path) -> None:
    tree = unpack(
        root,
        archive(
            directory("a", mtime=10),
            directory("a/b", mtime=20),
            entry("a/b/c"),
            entry("a/.wh.gone"),
            symlink("a/d", "c"),
        ),
    )
    assert tree[b"a"].mtime == 10 * 10**9
    assert tree[b"a/b"].mtime == 20 * 10**9


def test_directories_that_the_archive_does_not_bring_are_roots_and_0755(root: Path) -> None:
    tree = unpack(root, archive(directory("set", mode=0o2770, gid=50), entry("set/a/b/c")))
    for name in (b".", b"set/a", b"set/a/b"):
        assert (tree[name].mode, tree[name].uid, tree[name].gid) == (0o755, 0, 0)
    assert (tree[b"set"].mode, tree[b"set"].gid) == (0o2770, 50)
    assert (tree[b"set/a/b/c"].gid, tree[b"set/a/b/c"].mode) == (0, 0o644)


def test_hard_links_are_one_file(root: Path) -> None:
    tree = unpack(
        root,
        archive(
            entry("a", b"data", uid=3), hardlink("d/b", "a"), symlink("s", "a"), hardlink("t", "s")
        ),
    )
    assert tree[b"a"] == tree[b"d/b"]
    assert tree[b"a"].nlink == 2
    assert tree[b"s"] == tree[b"t"]
    assert (tree[b"t"].kind, tree[b"t"].nlink) == (stat.S_IFLNK, 2)


def test_capabilities_and_user_attributes_are_kept(root: Path) -> None:
    # struct vfs_cap_data, revision 2, cap_net_raw=ep
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.binary": b"\xff\x00=\n".decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.security.selinux": "system_u:object_r:bin_t:s0",
        "SCHILY.xattr.trusted.x": "y",
    }
    tree = unpack(root, archive(pax("bin/ping", headers, b"\x7fELF")))
    xattrs = tree[b"bin/ping"].xattrs
    assert xattrs.keys() == {"security.capability", "user.binary"}
    assert xattrs["user.binary"] == b"\xff\x00=\n"
    # The kernel may add the root of the namespace (revision 3); the rest is the same.
    assert xattrs["security.capability"][4:20] == capability[4:20]


def gzip_members(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(b"") + gzip.compress(data[half:])


def zstd_frames(data: bytes) -> bytes:
    half = len(data) // 2
    compressor = zstandard.ZstdCompressor()
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    return compressor.compress(data[:half]) + skippable + compressor.compress(data[half:])


@pytest.mark.parametrize(
    ("compress", "suffix"),
    [
        (bytes, ""),
        (gzip.compress, "+gzip"),
        (gzip_members, "+gzip"),
        (zstandard.compress, "+zstd"),
        (zstd_frames, "+zstd"),
    ],
)
def test_every_compression_gives_the_same_tree(
    root: Path, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    content = os.urandom(3_000_000)
    data = archive(entry("a", content, mtime=1), directory("d", mtime=2), entry("d/z", bytes(9)))
    tree = unpack(root, compress(data), TAR + suffix, sha256(data))
    assert names(tree) == {"a", "d", "d/z"}
    assert tree[b"a"].size == len(content)


@pytest.mark.parametrize("data", [b"", bytes(1024), bytes(10240), bytes(512)])
def test_an_empty_archive_is_an_empty_layer(root: Path, data: bytes) -> None:
    assert names(unpack(root, data)) == set()


def test_an_archive_without_an_end_mark_is_complete(root: Path) -> None:
    assert names(unpack(root, raw(entry("a", b"x")))) == {"a"}


def test_what_follows_the_end_counts_for_the_diff_id_and_is_ignored(root: Path) -> None:
    data = archive(entry("a")) + raw(entry("b")) + b"trailing"
    assert names(unpack(root, gzip.compress(data), TAR + "+gzip", sha256(data))) == {"a"}


def test_a_whiteout_is_a_0_0_device_and_an_opaque_directory_an_attribute(root: Path) -> None:
    tree = unpack(
        root,
        archive(
            entry("etc/.wh.passwd"),
            directory("var", mtime=1),
            entry("var/.wh..wh..opq"),
            entry("var/new"),
        ),
    )
    assert names(tree) == {"etc", "etc/passwd", "var", "var/new"}
    assert whiteouts(tree) == {"etc/passwd"}
    assert opaques(tree) == {"var"}


@pytest.mark.parametrize(
    "order",
    list(itertools.permutations([entry(".wh.d"), entry("d/x", b"new"), entry("d/.wh.y")])),
)
def test_a_directory_removed_and_made_again_shows_nothing_of_the_old_one(
    root: Path, order: tuple[Member, ...]
) -> None:
    tree = unpack(root, archive(*order))
    assert opaques(tree) == {"d"}
    assert tree[b"d/x"].content == b"new"
    assert whiteouts(tree) == {"d/y"}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_below_a_removed_directory_nothing_comes_back(root: Path, order: tuple[int, ...]) -> None:
    members = [entry(".wh.d"), entry("d/.wh.y"), entry("d/e/.wh..wh..opq")]
    tree = unpack(root, archive(*(members[index] for index in order)))
    assert names(tree) == whiteouts(tree) == {"d"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_whiteout_spares_what_its_own_layer_brings(root: Path, order: tuple[int, ...]) -> None:
    members = [entry("a", b"new"), entry(".wh.a")]
    tree = unpack(root, archive(*(members[index] for index in order)))
    assert tree[b"a"].content == b"new"
    assert whiteouts(tree) == set()


def test_an_opaque_mark_makes_the_directory_if_need_be(root: Path) -> None:
    tree = unpack(root, archive(entry("a/b/.wh..wh..opq"), entry(".wh..wh..opq")))
    assert names(tree) == {"a", "a/b"}
    assert opaques(tree) == {".", "a/b"}


def test_aufs_metadata_is_left_out(root: Path) -> None:
    tree = unpack(
        root,
        archive(entry(".wh..wh.aufs"), directory(".wh..wh.plnk"), entry(".wh..wh.plnk/1.2", b"x")),
    )
    assert names(tree) == set()


def test_of_two_entries_of_one_name_the_last_counts(root: Path) -> None:
    tree = unpack(
        root,
        archive(
            entry("file", b"old", mode=0o4755),
            hardlink("other", "file"),
            entry("./file", b"new", mode=0o600),
            directory("was-dir"),
            entry("was-dir/x"),
            entry("was-dir", b"file now"),
            entry("was-file"),
            directory("was-file"),
            entry("was-file/x"),
            directory("twice", mode=0o700, pax_headers={"SCHILY.xattr.user.a": "1"}),
            entry("twice/kept"),
            directory("twice", mode=0o711, mtime=7, pax_headers={"SCHILY.xattr.user.b": "2"}),
            entry("no-device"),
            device("no-device", tarfile.CHRTYPE, 1, 3),
        ),
    )
    assert tree[b"file"].content == b"new"
    assert tree[b"file"].mode == 0o600
    assert (tree[b"other"].content, tree[b"other"].mode) == (b"old", 0o4755)
    assert tree[b"was-dir"].content == b"file now"
    assert (tree[b"twice"].mode, tree[b"twice"].mtime) == (0o711, 7 * 10**9)
    assert tree[b"twice"].xattrs == {"user.b": b"2"}
    assert names(tree) == {
        *("file", "other", "was-dir", "was-file", "was-file/x", "twice", "twice/kept")
    }


@pytest.mark.parametrize(
    "name",
    [
        "new\nline",
        "tab\tesc\x1b[31m",
        " ",
        "-rf",
        "*",
        "ü\u202e",
        b"\xff\xfe invalid \x80".decode("utf-8", "surrogateescape"),
        "n" * 255,
        "/".join(["d" * 200] * 15) + "/x",
        "..a",
        "...",
        "a.wh.b",
    ],
)
@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_odd_names_are_kept_to_the_byte(root: Path, name: str, style: Format) -> None:
    members = [entry(name, b"x"), symlink("link", name)]
    tree = unpack(root, archive(*members, style=style))
    assert tree[os.fsencode(name)].content == b"x"
    assert tree[b"link"].target == os.fsencode(name)


@pytest.mark.parametrize("style", ["gnu", "posix"])
def test_sparse_files_stay_sparse(root: Path, tmp_path: Path, style: str) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        for index in range(40):  # more pieces than a header of the old format holds
            file.seek(index << 22)
            file.write(b"piece %d" % index)
        file.truncate(1 << 30)
    packed = subprocess.run(
        ["tar", "-C", tmp_path, f"--format={style}", "-S", "-c", "sparse", "-h"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    assert len(packed) < 1 << 20
    node = unpack(root, packed)[b"sparse"]
    assert node.size == 1 << 30
    assert node.blocks * 512 < 1 << 20
    with open(root / "layers" / sha256(packed)[7:] / "sparse", "rb") as file:
        for index in range(40):
            file.seek(index << 22)
            assert file.read(16).rstrip(b"\0") == b"piece %d" % index


def test_members_as_gnu_tar_writes_them(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d/e").mkdir(parents=True)
    (source / ("long" * 60)).write_bytes(b"long name")
    (source / "d/e/file").write_bytes(b"y" * 1_000_000)
    os.setxattr(source / "d/e/file", "user.note", b"kept")
    os.link(source / "d/e/file", source / "d/link")
    os.symlink("../" * 50 + "x", source / "d/up")
    os.utime(source / "d/e/file", ns=(1, 1_500_000_000_987654321))
    packed = subprocess.run(
        ["tar", "-C", source, "--format=posix", "--xattrs", "--owner=0", "--group=0", "-c", "."],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    tree = unpack(root, packed)
    assert names(tree) == {"d", "d/e", "d/e/file", "d/link", "d/up", "long" * 60}
    assert tree[b"d/link"] == tree[b"d/e/file"]
    assert tree[b"d/e/file"].mtime == 1_500_000_000_987654321
    assert tree[b"d/e/file"].xattrs == {"user.note": b"kept"}
    assert tree[b"d/up"].target == b"../" * 50 + b"x"
