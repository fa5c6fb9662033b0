"""Archives that lie about their sizes, are damaged, or grow without end are refused in one line."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from tests.images.archives import (
    TAR,
    archive,
    entry,
    raw,
    sha256,
)
from tests.images.place import Place


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
