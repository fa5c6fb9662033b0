"""The config.json of a container, computed from a request and an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rootless.containers.annotation import STOP_SIGNAL, Spec, read_extra
from rootless.containers.request import Mount, Request
from rootless.containers.spec import Place, build
from rootless.errors import RlError
from rootless.images.manifest import ImageConfig
from rootless.images.platform import Platform
from rootless.kernel.userns import IdMap, Maps

IMAGE = ImageConfig(
    platform=Platform("linux", "amd64"),
    diff_ids=("sha256:" + "1" * 64,),
    env=("PATH=/image", "A=image"),
    entrypoint=("/entry",),
    cmd=("default", "command"),
    working_dir="/srv",
    user="www-data",
    stop_signal="SIGINT",
    labels={"a": "image", "b": "image"},
)
PLACE = Place(
    bundle="/state/containers/f",
    maps=Maps((IdMap(0, 1000, 1),), (IdMap(0, 1000, 1),)),
    hostname="box",
    init_program=None,
    nofile=(1024, 4096),
)


def spec(
    image: ImageConfig = IMAGE,
    mounts: list[tuple[Mount, str]] | None = None,
    **request: Any,
) -> Spec:
    return build(Request(image="img", **request), "sha256:id", image, PLACE, mounts or [])


@pytest.mark.parametrize(
    ("request_fields", "args"),
    [
        ({}, ["/entry", "default", "command"]),
        ({"command": ("mine",)}, ["/entry", "mine"]),
        ({"entrypoint": "/other"}, ["/other"]),
        ({"entrypoint": "/other", "command": ("x",)}, ["/other", "x"]),
        ({"entrypoint": '["/other", "-c"]', "command": ("x",)}, ["/other", "-c", "x"]),
        ({"entrypoint": '["/other", 1]', "command": ("x",)}, ['["/other", 1]', "x"]),
        ({"entrypoint": "[", "command": ("x",)}, ["[", "x"]),
        ({"entrypoint": "", "command": ("x", "y")}, ["x", "y"]),
        ({"command": ("x",), "init": True}, ["/dev/init", "--", "/entry", "x"]),
    ],
)
def test_entrypoint_and_command_combine_as_in_docker(
    request_fields: Mapping[str, Any], args: list[str]
) -> None:
    assert spec(**request_fields)["process"]["args"] == args


def test_image_without_any_command_is_refused() -> None:
    with pytest.raises(RlError, match="no command specified"):
        spec(IMAGE._replace(entrypoint=(), cmd=()))
    with pytest.raises(RlError, match="no command specified"):
        spec(entrypoint="")


def test_environment_is_the_images_and_then_the_requests() -> None:
    env = spec(env=("A=mine", "C=d=e"))["process"]["env"]
    assert env == ["PATH=/image", "HOSTNAME=box", "A=mine", "C=d=e"]


def test_environment_of_an_image_with_none_has_a_path_and_a_terminal_has_a_type() -> None:
    env = spec(IMAGE._replace(env=("no-equals-sign", "=x")), terminal=True)["process"]["env"]
    assert env[0].startswith("PATH=/usr/local/sbin:")
    assert "TERM=xterm" in env
    assert "no-equals-sign=" in env
    assert not any(item.startswith("=") for item in env)


def test_working_directory_is_the_requests_or_the_images_or_root() -> None:
    assert spec()["process"]["cwd"] == "/srv"
    assert spec(workdir="/else/../where")["process"]["cwd"] == "/where"
    assert spec(IMAGE._replace(working_dir=""))["process"]["cwd"] == "/"
    assert spec(IMAGE._replace(working_dir="relative"))["process"]["cwd"] == "/relative"
    with pytest.raises(RlError, match="must be an absolute path"):
        spec(workdir="relative")


def test_user_stop_signal_and_labels_are_the_images_unless_overridden() -> None:
    made = spec(labels={"b": "mine"})
    assert made["process"]["user"]["username"] == "www-data"
    assert made["annotations"][STOP_SIGNAL] == "SIGINT"
    assert read_extra(made).labels == {"a": "image", "b": "mine"}
    assert spec(user="0:0")["process"]["user"]["username"] == "0:0"


def namespaces(made: Spec) -> set[str]:
    return {namespace["type"] for namespace in made["linux"]["namespaces"]}


def test_network_namespace_and_its_sysfs_are_made_only_without_the_hosts_network() -> None:
    alone, shared = spec(network="none"), spec(network="host")
    assert namespaces(alone) - namespaces(shared) == {"network"}
    assert namespaces(shared) == {"user", "mount", "pid", "uts", "ipc", "cgroup"}
    by_kind = {
        kind: next(mount for mount in made["mounts"] if mount["destination"] == "/sys")
        for kind, made in (("alone", alone), ("shared", shared))
    }
    assert by_kind["alone"]["type"] == "sysfs"
    assert by_kind["shared"]["type"] == "bind"
    assert all("ro" in mount["options"] for mount in by_kind.values())
    assert alone["linux"]["sysctl"]
    assert not shared["linux"]["sysctl"]


def test_mounts_come_parents_first_and_replace_the_defaults() -> None:
    asked = [
        (Mount("bind", "/h/deep", "/data/sub/deep", ("ro",)), "/h/deep"),
        (Mount("bind", "/h", "/data"), "/h"),
        (Mount("tmpfs", "", "/dev/shm", ("size=1m", "exec")), ""),
        (Mount("bind", "/my/hosts", "/etc/hosts"), "/my/hosts"),
    ]
    made = spec(mounts=asked)["mounts"]
    targets = [mount["destination"] for mount in made]
    assert targets.index("/data") < targets.index("/data/sub/deep")
    assert targets.index("/dev") < targets.index("/dev/shm")
    assert len(targets) == len(set(targets))
    by_target = {mount["destination"]: mount for mount in made}
    assert by_target["/dev/shm"]["options"] == ["nosuid", "nodev", "size=1m", "exec"]
    assert by_target["/etc/hosts"]["source"] == "/my/hosts"
    assert by_target["/data/sub/deep"]["options"] == ["rbind", "ro"]


def test_two_mounts_on_one_target_are_refused() -> None:
    with pytest.raises(RlError, match="duplicate mount point: /data"):
        spec(mounts=[(Mount("tmpfs", "", "/data"), ""), (Mount("bind", "/h", "/data"), "/h")])


def test_only_dockers_capabilities_are_left() -> None:
    kept = spec()["process"]["capabilities"]
    assert len(kept["bounding"]) == 14
    assert "CAP_SYS_ADMIN" not in kept["bounding"]
    assert kept["bounding"] == kept["effective"] == kept["permitted"]
    assert "inheritable" not in kept


def test_volumes_are_told_apart_for_their_removal_and_their_filling() -> None:
    asked = Mount("volume", "data", "/data", ("nocopy",))
    anonymous = Mount("volume", "0123", "/anonymous")
    extra = read_extra(
        build(
            Request(image="img", mounts=(asked,)),
            "sha256:id",
            IMAGE,
            PLACE,
            [(asked, "/v/data"), (anonymous, "/v/0")],
            {"0123"},
        )
    )
    assert extra.volumes == {"/data": "data", "/anonymous": "0123"}
    assert extra.anonymous_volumes == ["0123"]
    assert extra.filled_volumes == ["/anonymous"]
