"""The rules of merging, and the options of the command, on plain values."""

from __future__ import annotations

import pytest

from fuse_overlay.command import UsageError, parse, split_escaped, unescape
from fuse_overlay.merge import Kind, is_private_attribute, is_reserved, merge

D, F, W = Kind.DIRECTORY, Kind.OTHER, Kind.WHITEOUT


@pytest.mark.parametrize(
    ("kinds", "layers"),
    [
        ("F", (1,)),
        ("D", (1,)),
        ("W", None),
        ("-F", (2,)),
        ("FF", (1,)),
        ("FD", (1,)),
        ("DD", (1, 2)),
        ("D-D", (1, 3)),
        ("DFD", (1,)),
        ("DWD", (1,)),
        ("WD", None),
        ("-WD", None),
        ("DDWD", (1, 2)),
        ("WFD", None),
        ("--D-D", (3, 5)),
    ],
)
def test_a_name_comes_from_the_layers_that_nothing_above_hides(
    kinds: str, layers: tuple[int, ...] | None
) -> None:
    letters = {"D": D, "F": F, "W": W}
    listings = [
        (index, {b"name": letters[letter]} if letter != "-" else {})
        for index, letter in enumerate(kinds, 1)
    ]
    assert merge(listings).get(b"name") == layers


def test_names_do_not_disturb_each_other() -> None:
    merged = merge([(1, {b"a": F, b"b": W, b"c": D}), (2, {b"a": F, b"b": F, b"c": D, b"d": D})])
    assert merged == {b"a": (1,), b"c": (1, 2), b"d": (2,)}


def test_names_that_a_layer_would_read_as_whiteouts_are_reserved() -> None:
    assert is_reserved(b".wh.x")
    assert is_reserved(b".wh..wh..opq")
    assert not is_reserved(b".whx")
    assert not is_reserved(b"x.wh.x")


def test_attributes_of_overlays_are_private() -> None:
    for name in b"user.overlay.opaque trusted.overlay.origin user.fuseoverlayfs.opaque".split():
        assert is_private_attribute(name)
    assert is_private_attribute(b"user.containers.override_stat")
    assert not is_private_attribute(b"user.overlay")
    assert not is_private_attribute(b"security.capability")


def test_options_are_those_of_fuse_overlayfs() -> None:
    arguments = parse(["-o", "lowerdir=/a:/b,upperdir=/u,workdir=/w,xino=off,volatile", "/m"])
    assert arguments.lowers == ("/a", "/b")
    assert (arguments.upper, arguments.work, arguments.mountpoint) == ("/u", "/w", "/m")
    assert arguments.volatile
    assert not arguments.read_only
    assert not arguments.foreground


def test_mount_names_a_source_and_adds_options() -> None:
    arguments = parse(["source", "/m", "-o", "rw,lowerdir=/a,upperdir=/u,workdir=/w,dev,suid"])
    assert arguments.mountpoint == "/m"
    assert not arguments.read_only


def test_without_an_upper_directory_the_mount_is_read_only() -> None:
    assert parse(["-olowerdir=/a", "/m"]).read_only
    assert parse(["-o", "ro,lowerdir=/a,upperdir=/u,workdir=/w", "/m"]).read_only


def test_a_backslash_lets_a_path_contain_separators() -> None:
    options = r"lowerdir=/a\:b:/c\,d:/e\\f,upperdir=/u\,:,workdir=/w"
    arguments = parse(["-o", options, "/m"])
    assert arguments.lowers == ("/a:b", "/c,d", "/e\\f")
    assert arguments.upper == "/u,:"


def test_a_backslash_before_a_backslash_does_not_escape_the_separator() -> None:
    assert [unescape(part) for part in split_escaped("a\\\\:b", ":")] == ["a\\", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one mountpoint"),
        (["-o", "lowerdir=/a"], "one mountpoint"),
        (["/m"], "lowerdir"),
        (["-o", "lowerdir=/a,upperdir=/u", "/m"], "workdir"),
        (["--what", "/m"], "--what"),
        (["-o", "lowerdir=/a", "1", "2", "3"], "3 names"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(
    arguments: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        parse(arguments)
