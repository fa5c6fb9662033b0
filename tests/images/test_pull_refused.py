"""A registry that lies: nothing that it says is believed, and nothing wrong is ever visible."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rootless.images.platform import Platform
from rootless.images.store import ImageStore
from tests.images.fake import digest
from tests.images.pulling import OCI, Lying, fails, files, image, tree, visible
from tests.support.oci import Layer
from tests.support.runner import Rl


def test_a_layer_with_other_bytes_than_its_digest_is_never_visible(
    lying: Lying, fresh_rl: Rl
) -> None:
    layer = lying.write(Layer(files(a="a"), "none"))["layers"][0]
    wrong = lying.blob(layer["digest"]).read_bytes().replace(b"a", b"b")
    lying.blob(layer["digest"]).write_bytes(wrong)
    assert f"what was received for {layer['digest']} is {digest(wrong)}" in fails(
        fresh_rl, lying.name
    )
    assert visible(fresh_rl) == []
    assert not ImageStore(fresh_rl.root).has_blob(layer["digest"])


def test_a_layer_with_another_content_than_its_diff_id_is_never_visible(
    lying: Lying, fresh_rl: Rl
) -> None:
    manifest = lying.write(Layer(files(a="a")))
    config = lying.document(manifest["config"]["digest"])
    config["rootfs"]["diff_ids"] = [digest(b"other")]
    manifest["config"] = lying.put(config, f"{OCI}.config.v1+json")
    lying.put(manifest)
    found = digest(files(a="a"))
    assert f"its content is {found}" in fails(fresh_rl, lying.name)
    assert visible(fresh_rl) == []


def test_a_damaged_archive_is_never_visible(lying: Lying, fresh_rl: Rl) -> None:
    lying.write(Layer(os.urandom(3_000_000), "gzip"), Layer(files(good="1")))
    assert "cannot unpack layer sha256:" in fails(fresh_rl, lying.name)
    assert all(name == digest(files(good="1"))[7:] for name in visible(fresh_rl))


def test_a_configuration_with_another_digest_is_refused(lying: Lying, fresh_rl: Rl) -> None:
    config = lying.write(Layer(files(a="a")))["config"]
    lying.blob(config["digest"]).write_bytes(b"x" * config["size"])
    assert "its configuration is not what its digest" in fails(fresh_rl, lying.name)


def test_a_configuration_with_fewer_layers_than_the_manifest_is_refused(
    lying: Lying, fresh_rl: Rl
) -> None:
    manifest = lying.write(Layer(files(a="a")))
    lying.put({**manifest, "layers": manifest["layers"] * 2})
    assert "the manifest has 2 layers, the configuration 1" in fails(fresh_rl, lying.name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schemaVersion": 1, "mediaType": None, "config": None}, "schema 1 is no longer"),
        ({"config": {"mediaType": "application/vnd.x+json"}}, "no container image"),
        ({"layers": [{"mediaType": "text/plain"}]}, "layer type 'text/plain' is not supported"),
        ({"layers": [{"digest": "md5:abc"}]}, "not a digest we can verify"),
        ({"layers": [{"digest": "sha256:../../../etc/passwd"}]}, "not a digest we can verify"),
        ({"layers": [{"size": -1}]}, "out of range"),
    ],
)
def test_a_manifest_that_is_no_image_of_ours_is_refused(
    lying: Lying, fresh_rl: Rl, change: dict[str, Any], reason: str
) -> None:
    manifest = lying.write(Layer(files(a="a")))
    if "layers" in change:
        change = {"layers": [manifest["layers"][0] | change["layers"][0]]}
    if change.get("config"):
        change = {"config": manifest["config"] | change["config"]}
    lying.put(manifest | change)
    assert reason in fails(fresh_rl, lying.name)
    assert visible(fresh_rl) == []


def test_a_store_that_cannot_be_written_is_named(lying: Lying, fresh_rl: Rl) -> None:
    lying.write(Layer(files(a="a")))
    fresh_rl("pull", lying.name)
    lying.write(Layer(files(b="b")))
    (fresh_rl.root / "pull.lock").unlink()
    (fresh_rl.root / "pull.lock").mkdir()
    assert f"{fresh_rl.root}/pull.lock: Is a directory" in fails(fresh_rl, lying.name)


def test_a_layer_that_the_registry_does_not_have_is_named(lying: Lying, fresh_rl: Rl) -> None:
    layer = lying.write(Layer(files(a="a")))["layers"][0]
    lying.blob(layer["digest"]).unlink()
    assert f"{layer['digest']}, a part of the image, is missing" in fails(fresh_rl, lying.name)


# Platforms


def index_of(lying: Lying, **layers: str) -> dict[str, Any]:
    """Put an index with an image for each architecture; its layer holds the text."""
    entries = []
    for architecture, text in layers.items():
        manifest = lying.write(Layer(files(text=text)), architecture=architecture)
        entries.append(lying.put(manifest))
        entries[-1]["platform"] = {"os": "linux", "architecture": architecture}
    index = {"schemaVersion": 2, "manifests": entries}
    return lying.put(index, f"{OCI}.index.v1+json")


def test_of_an_index_the_platform_of_this_machine_or_the_one_asked_for_is_taken(
    lying: Lying, fresh_rl: Rl
) -> None:
    here = Platform.host().architecture
    top = index_of(lying, s390x="there", **{here: "here"})
    done = fresh_rl("pull", lying.name)
    assert f"Digest: {top['digest']}" in done.stderr
    assert tree(fresh_rl, lying.name) == {"text": "here"}
    assert tree(fresh_rl, f"{lying.name}@{top['digest']}") == {"text": "here"}
    fresh_rl("pull", "--platform", "linux/s390x", lying.name)
    assert tree(fresh_rl, lying.name) == {"text": "there"}


def test_a_platform_that_is_not_offered_is_refused_with_those_that_are(
    lying: Lying, fresh_rl: Rl
) -> None:
    index_of(lying, s390x="there", riscv64="there")
    reason = "(there is: linux/s390x, linux/riscv64)"
    assert reason in fails(fresh_rl, lying.name)
    assert reason in fails(fresh_rl, lying.name, "--platform", "linux/ppc64le")


def test_one_image_for_another_platform_is_taken_but_not_when_asked_for_ours(
    lying: Lying, fresh_rl: Rl
) -> None:
    lying.write(Layer(files(a="a")), architecture="s390x")
    here = Platform.host()
    assert f"for linux/s390x only, not for {here}" in fails(
        fresh_rl, lying.name, "--platform", str(here)
    )
    fresh_rl("pull", lying.name)
    assert str(image(fresh_rl, lying.name).config.platform) == "linux/s390x"


def test_indexes_without_end_are_given_up(lying: Lying, fresh_rl: Rl) -> None:
    inner = lying.put({"schemaVersion": 2, "manifests": []}, f"{OCI}.index.v1+json")
    for _ in range(5):
        document = {"schemaVersion": 2, "manifests": [inner]}
        inner = lying.put(document, f"{OCI}.index.v1+json")
    assert "indexes without end" in fails(fresh_rl, lying.name)
