"""Documents of a registry: honest ones are read, hostile ones refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RlError
from rootless.images.document import MAX_DOCUMENT
from rootless.images.manifest import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    check_layers,
    choose,
    parse_config,
    parse_document,
    parse_index,
    parse_manifest,
    to_oci,
)
from rootless.images.platform import Platform

DIGEST = "sha256:" + "0123456789abcdef" * 4
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def described(media_type: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 7} | fields


def manifest(**fields: Any) -> dict[str, Any]:
    layers = [described(OCI_LAYER)]
    return {"schemaVersion": 2, "config": described(OCI_CONFIG), "layers": layers} | fields


def config(**fields: Any) -> dict[str, Any]:
    rootfs = {"type": "layers", "diff_ids": [DIGEST]}
    return {"os": "linux", "architecture": "amd64", "rootfs": rootfs} | fields


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_an_oci_manifest_is_read() -> None:
    found = parse_document(encode(manifest(annotations={"a": "b"})))
    assert found == Manifest(
        OCI_MANIFEST, Descriptor(OCI_CONFIG, DIGEST, 7), (Descriptor(OCI_LAYER, DIGEST, 7),)
    )


def test_a_docker_manifest_is_read_and_has_an_oci_form() -> None:
    layers = [described(DOCKER_LAYER)]
    value = manifest(mediaType=DOCKER_MANIFEST, config=described(DOCKER_CONFIG), layers=layers)
    found = parse_manifest(encode(value))
    assert found.media_type == DOCKER_MANIFEST
    assert found.layers[0].media_type == DOCKER_LAYER
    assert parse_manifest(to_oci(found)) == parse_manifest(encode(manifest()))


@pytest.mark.parametrize("media_type", [None, OCI_INDEX, DOCKER_INDEX])
def test_an_index_is_read(media_type: str | None) -> None:
    platform = {"os": "linux", "architecture": "arm", "variant": "v6", "os.version": "x"}
    entry = described(OCI_MANIFEST, platform=platform, annotations={"k": "v"})
    found = parse_document(
        encode({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]})
    )
    assert found == Index(
        media_type or OCI_INDEX,
        (Descriptor(OCI_MANIFEST, DIGEST, 7, {"k": "v"}, Platform("linux", "arm", "v6")),),
    )


def test_a_configuration_is_read() -> None:
    run = {
        "Env": ["A=b"],
        "Entrypoint": ["/e"],
        "Cmd": ["c", ""],
        "WorkingDir": "/w",
        "User": "u:g",
        "StopSignal": "SIGINT",
        "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"l": "m"},
        "Healthcheck": {"Test": ["NONE"]},
    }
    history = [{"created_by": "x", "empty_layer": True}]
    found = parse_config(
        encode(config(config=run, created="2020-01-02T03:04:05Z", history=history))
    )
    assert found.platform == Platform("linux", "amd64")
    assert found.diff_ids == (DIGEST,)
    assert (found.env, found.entrypoint, found.cmd) == (("A=b",), ("/e",), ("c", ""))
    assert (found.working_dir, found.user, found.stop_signal) == ("/w", "u:g", "SIGINT")
    assert (found.volumes, found.exposed_ports) == (("/v",), ("80/tcp",))
    assert (found.labels, found.healthcheck) == ({"l": "m"}, {"Test": ["NONE"]})
    assert (found.created, found.history) == ("2020-01-02T03:04:05Z", tuple(history))


def test_null_is_as_good_as_nothing() -> None:
    names = ["Env", "Entrypoint", "Cmd", "WorkingDir", "User", "Volumes", "Labels", "Healthcheck"]
    run = dict.fromkeys(names)
    bare = config(rootfs={"type": "layers", "diff_ids": None})
    with_nulls = bare | {"config": run, "history": None, "created": None, "variant": None}
    assert parse_config(encode(with_nulls)) == parse_config(encode(bare | {"config": None}))
    assert parse_manifest(encode(manifest(layers=None))).layers == ()


@pytest.mark.parametrize("created", ["yesterday", "2020-01-01", "\x1b[2J", "2020-01-01T00:00:00Zx"])
def test_a_date_that_is_none_is_left_out(created: str) -> None:
    assert parse_config(encode(config(created=created))).created == ""


@pytest.mark.parametrize(
    "value",
    [
        manifest(manifests=[]),
        {"schemaVersion": 2, "manifests": [], "config": described(OCI_CONFIG)},
        manifest(mediaType=OCI_INDEX),
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []},
    ],
)
def test_a_document_that_could_be_both_image_and_index_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(RlError):
        parse_document(encode(value))


@pytest.mark.parametrize(
    "digest",
    [
        *("", "sha256:", "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64),
        *(
            "sha512:" + "0" * 128,
            "sha256:../../../../" + "0" * 52,
            DIGEST + "\n",
            None,
            5,
            [DIGEST],
        ),
    ],
)
def test_a_digest_is_sha256_in_lower_case(digest: Any) -> None:
    values = [
        manifest(config=described(OCI_CONFIG, digest=digest)),
        manifest(layers=[described(OCI_LAYER, digest=digest)]),
        {"schemaVersion": 2, "manifests": [described(OCI_MANIFEST, digest=digest)]},
    ]
    for value in values:
        with pytest.raises(RlError):
            parse_document(encode(value))
    with pytest.raises(RlError):
        parse_config(encode(config(rootfs={"type": "layers", "diff_ids": [digest]})))


@pytest.mark.parametrize("size", [-1, 2**63, 1.5, True, "7", None, 10**400])
def test_a_size_is_a_number_of_bytes(size: Any) -> None:
    with pytest.raises(RlError):
        parse_manifest(encode(manifest(layers=[described(OCI_LAYER, size=size)])))


@pytest.mark.parametrize(
    "value",
    [
        manifest(schemaVersion=1, fsLayers=[]),
        manifest(config=described("application/vnd.cncf.helm.config.v1+json")),
        manifest(config=described(OCI_CONFIG, size=MAX_DOCUMENT + 1)),
        manifest(config=None),
        manifest(layers=[described("application/vnd.oci.image.layer.v1.tar+lz4")]),
        manifest(layers=[described(OCI_LAYER)] * 501),
        manifest(layers={}),
        manifest(layers=["x"]),
        manifest(mediaType=5),
        manifest(mediaType="text/html"),
        {"schemaVersion": 2, "manifests": [described(OCI_MANIFEST, platform={"os": "\x1b"})]},
        {"schemaVersion": 2, "manifests": [described(OCI_MANIFEST, annotations={"a": 1})]},
        {},
        [],
        None,
        "text",
    ],
)
def test_a_manifest_that_is_not_as_specified_is_refused(value: Any) -> None:
    with pytest.raises(RlError) as raised:
        parse_document(encode(value))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "fields",
    [
        {"rootfs": {"type": "foreign", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": [DIGEST] * 501}},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": ["A=b", 1]}},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"Cmd": ["\ud800"]}},
        {"config": {"Entrypoint": {}}},
        {"config": {"User": 0}},
        {"config": {"Volumes": ["/v"]}},
        {"config": {"Volumes": {"/\0": {}}}},
        {"config": {"Labels": {"a": None}}},
        {"config": {"Healthcheck": "x"}},
        {"config": []},
        {"history": [1]},
        {"architecture": "../x"},
        {"os": 1},
    ],
)
def test_a_configuration_that_is_not_as_specified_is_refused(fields: dict[str, Any]) -> None:
    parse_config(encode(config()))
    with pytest.raises(RlError) as raised:
        parse_config(encode(config(**fields)))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"\xff\xfe", b'{"a":' + b"9" * 5000 + b"}", b"[" * 100_000, b"NaN", b"\0"),
        b'{"layers":' * 50_000,
        b" " * (MAX_DOCUMENT + 1),
    ],
)
def test_what_is_not_json_of_a_sane_size_is_refused(data: bytes) -> None:
    for parse in (parse_document, parse_config):
        with pytest.raises(RlError) as raised:
            parse(data)
        assert len(str(raised.value)) < 300


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(DIGEST)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                "mediaType digest size config layers manifests platform os architecture variant "
                "rootfs diff_ids type Env Cmd Volumes Labels annotations schemaVersion".split()
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    for parse in (parse_document, parse_manifest, parse_index, parse_config):
        with contextlib.suppress(RlError):
            parse(encode(value))


def test_layers_and_diff_ids_must_be_as_many() -> None:
    image = parse_manifest(encode(manifest()))
    assert check_layers(image, parse_config(encode(config()))) == ((DIGEST, image.layers[0]),)
    with pytest.raises(RlError, match="1 layers, the configuration 0 diff IDs"):
        check_layers(image, parse_config(encode(config(rootfs={"diff_ids": []}))))


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("linux/amd64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("Linux/ARM64", Platform("linux", "arm64")),
        ("linux/aarch64/v8", Platform("linux", "arm64")),
        ("linux/arm64/8", Platform("linux", "arm64")),
        ("arm64", Platform("linux", "arm64")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/6", Platform("linux", "arm", "v6")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/i386", Platform("linux", "386")),
        ("windows/amd64", Platform("windows", "amd64")),
    ],
)
def test_a_platform_has_one_form(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux//v7", "a/b/c/d", "linux/am d64", "l;s"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("riscv64", "linux/riscv64"),
        ("s390x", "linux/s390x"),
        ("ppc64le", "linux/ppc64le"),
        ("loongarch64", "linux/loong64"),
    ],
)
def test_the_kernels_machine_names_are_known(
    monkeypatch: pytest.MonkeyPatch, machine: str, platform: str
) -> None:
    # The one thing that the machine under the test cannot be made to say.
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", machine)))
    assert str(Platform.host()) == platform
    assert Platform.parse("linux") == Platform.host()


def offer(*platforms: str | None, kind: str = OCI_MANIFEST) -> Index:
    """Return an index whose entries are told apart by their sizes: 0, 1, 2…"""
    return Index(
        OCI_INDEX,
        tuple(
            Descriptor(kind, DIGEST, size, {}, Platform(*text.split("/")) if text else None)
            for size, text in enumerate(platforms)
        ),
    )


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["windows/amd64", "linux/386"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/amd64", [None, "linux/amd64"], 1),
        ("linux/amd64", ["unknown/unknown", None], 1),
    ],
)
def test_the_closest_platform_is_chosen(
    wanted: str, offered: list[str | None], chosen: int
) -> None:
    assert choose(offer(*offered), Platform.parse(wanted)).size == chosen


def test_a_platform_that_is_not_there_is_refused_with_those_that_are() -> None:
    index = offer("linux/arm64", "linux/s390x", "unknown/unknown", "linux/arm64")
    with pytest.raises(RlError) as raised:
        choose(index, Platform.parse("linux/amd64"))
    assert str(raised.value) == "no image for linux/amd64 (there is: linux/arm64, linux/s390x)"
    with pytest.raises(RlError, match="there is: none"):
        choose(offer("linux/amd64", kind="application/x-other"), Platform.parse("linux/amd64"))


def test_an_image_exposes_no_more_ports_than_there_are() -> None:
    every: dict[str, Any] = {
        f"{port}/{name}": {} for port in range(1, 65536) for name in ("tcp", "udp")
    }
    assert len(parse_config(encode(config(config={"ExposedPorts": every}))).exposed_ports) == 131070
    with pytest.raises(RlError, match="ExposedPorts has 131071 entries"):
        parse_config(encode(config(config={"ExposedPorts": every | {"0080/tcp": {}}})))
