"""The syntax of -v, --mount, --tmpfs and -e, without a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.containers.request import (
    Mount,
    parse_env,
    parse_lines,
    parse_mount,
    parse_tmpfs,
    parse_volume,
)
from rootless.errors import RlError


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/host:/inside", Mount("bind", "/host", "/inside")),
        ("/host:/inside:ro", Mount("bind", "/host", "/inside", ("ro",))),
        ("/host:/inside:ro,rslave,z", Mount("bind", "/host", "/inside", ("ro", "rslave"))),
        ("/host/../other:/a//b/", Mount("bind", "/other", "/a/b")),
        ("data:/inside", Mount("volume", "data", "/inside")),
        ("data:/inside:nocopy", Mount("volume", "data", "/inside", ("nocopy",))),
        ("/inside", Mount("volume", "", "/inside")),
        ("/a:/b/../../c", Mount("bind", "/a", "/c")),
    ],
)
def test_volume_is_read_as_docker_reads_it(text: str, mount: Mount) -> None:
    assert parse_volume(text) == mount


def test_relative_source_is_a_host_path() -> None:
    assert parse_volume("./here:/inside").source == f"{os.getcwd()}/here"
    assert parse_volume(".:/inside").source == os.getcwd()


@pytest.mark.parametrize(
    "text",
    ["", "/a:", ":/b", "/a:b", "/a:/", "/a:/..", "/a:/b:sideways", "a:/b:ro:rw", "a/b:/c", "-x:/c"],
)
def test_bad_volume_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(RlError, match="invalid"):
        parse_volume(text)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/h,target=/t", Mount("bind", "/h", "/t")),
        ("type=bind,src=/h,dst=/t,readonly", Mount("bind", "/h", "/t", ("ro",))),
        ("type=bind,src=/h,destination=/t,ro=false", Mount("bind", "/h", "/t")),
        (
            "type=bind,src=/h,dst=/t,bind-propagation=rslave",
            Mount("bind", "/h", "/t", ("rslave",)),
        ),
        ("type=bind,src=/h,dst=/t,bind-nonrecursive", Mount("bind", "/h", "/t", ("bind",))),
        ("source=data,target=/t", Mount("volume", "data", "/t")),
        ("type=volume,target=/t,volume-nocopy=true", Mount("volume", "", "/t", ("nocopy",))),
        (
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770",
            Mount("tmpfs", "", "/t", ("size=1m", "mode=1770")),
        ),
    ],
)
def test_mount_is_read_as_docker_reads_it(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,target=/t",
        "type=bind,source=/h",
        "type=floppy,source=/h,target=/t",
        "type=tmpfs,source=/h,target=/t",
        "type=bind,source=/h,target=t",
        "type=bind,source=/h,target=/t,colour=red",
        "type=bind,source=/h,target=/t,readonly=maybe",
        "type=bind,source=/h,target=/t,bind-propagation=up",
    ],
)
def test_bad_mount_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(RlError, match="invalid mount"):
        parse_mount(text)


def test_tmpfs_keeps_its_options() -> None:
    assert parse_tmpfs("/run:size=1m,exec") == Mount("tmpfs", "", "/run", ("size=1m", "exec"))
    assert parse_tmpfs("/run") == Mount("tmpfs", "", "/run")


def test_variable_without_value_is_taken_from_the_host_if_it_is_there() -> None:
    host = {"THERE": "yes"}
    assert parse_env(["A=1", "B=", "THERE", "MISSING", "C=x=y"], host) == (
        "A=1",
        "B=",
        "THERE=yes",
        "C=x=y",
    )


def test_variable_without_name_is_refused() -> None:
    with pytest.raises(RlError, match="invalid environment variable"):
        parse_env(["=1"], {})


def test_env_file_has_comments_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("\ufeff# comment\n\nA=1 2\n  B=#2\nHOST\n")
    assert parse_lines(str(file), "environment") == ["A=1 2", "B=#2", "HOST"]


@pytest.mark.parametrize("content", [b"A B=1\n", b"\xff\xfe=1\n"])
def test_bad_env_file_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)
    with pytest.raises(RlError, match=str(file)):
        parse_lines(str(file), "environment")
    with pytest.raises(RlError, match="missing"):
        parse_lines(str(tmp_path / "missing"), "label")
