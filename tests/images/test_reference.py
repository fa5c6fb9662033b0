"""References mean what Docker takes them to mean."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RlError
from rootless.images.reference import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.18", "docker.io/library/alpine:3.18", "alpine:3.18"),
        ("user/img:tag", "docker.io/user/img:tag", "user/img:tag"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("a/b/c", "docker.io/a/b/c:latest", "a/b/c:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("host:5000/a/b", "host:5000/a/b:latest", "host:5000/a/b:latest"),
        ("ghcr.io/x/y:1", "ghcr.io/x/y:1", "ghcr.io/x/y:1"),
        ("Example.COM/x:1", "Example.COM/x:1", "Example.COM/x:1"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("foo/foo_bar.com:80", "docker.io/foo/foo_bar.com:80", "foo/foo_bar.com:80"),
        ("foo.com:80", "docker.io/library/foo.com:80", "foo.com:80"),
        ("a__b/c--d.e:T.1_x-", "docker.io/a__b/c--d.e:T.1_x-", "a__b/c--d.e:T.1_x-"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        (f"h:1/a/b@{DIGEST}", f"h:1/a/b@{DIGEST}", f"h:1/a/b@{DIGEST}"),
        (f"alpine:1@{DIGEST}", f"docker.io/library/alpine:1@{DIGEST}", f"alpine:1@{DIGEST}"),
        # Shortened, it would name a registry.
        ("docker.io/quay.io/x", "docker.io/quay.io/x:latest", "docker.io/quay.io/x:latest"),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
        ("x/" + "a" * 253, "docker.io/x/" + "a" * 253 + ":latest", "x/" + "a" * 253 + ":latest"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128),
    ],
)
def test_a_name_is_read_as_docker_reads_it(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("docker.io/", "empty"),
        ("host:5000/", "all there is"),
        ("Alpine", "lower case (try 'alpine')"),
        ("User/Img:tag", "lower case (try 'user/img')"),
        ("alpine:", "a tag is"),
        ("alpine:.x", "a tag is"),
        ("alpine:" + "t" * 129, "a tag is"),
        ("alpine:t\n", "a tag is"),
        ("a:b:c", "a tag is"),
        ("alpine@", "a digest is"),
        ("alpine@sha256:abc", "a digest is"),
        ("alpine@" + DIGEST.upper(), "a digest is"),
        ("alpine@sha512:" + "a" * 128, "a digest is"),
        ("-alpine", "a repository is"),
        ("a//b", "a repository is"),
        ("a/../b", "a repository is"),
        ("a b", "a repository is"),
        ("alpine\n", "a repository is"),
        ("a___b", "a repository is"),
        ("ä", "a repository is"),
        ("x/" + "a" * 254, "at most 255"),
        ("-host.org/x", "is not a host"),
        ("host:99999/x", "is not a host"),
        ("ho%st:1/x", "is not a host"),
        ("https://quay.io/x", "is not a host"),
        ("a" * 64, "image ID"),
    ],
)
def test_an_odd_name_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(RlError) as refusal:
        Reference.parse(text)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
component = st.text(LOWER, min_size=1, max_size=8)
host = st.sampled_from(["", "docker.io/", "localhost/", "quay.io/", "h:5000/", "a/", "a.b/"])
names = st.builds(
    lambda registry, parts, tag, digest: registry + "/".join(parts) + tag + digest,
    host,
    st.lists(component, min_size=1, max_size=3),
    st.sampled_from(["", ":latest", ":1.0"]),
    st.sampled_from(["", f"@{DIGEST}"]),
)


@given(names)
def test_both_printed_forms_mean_the_same_image(text: str) -> None:
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@given(st.text(st.sampled_from("aA0./:@-_[]\n é"), max_size=40))
def test_any_text_is_a_name_or_is_refused_in_one_line(text: str) -> None:
    try:
        printed = str(Reference.parse(text))
    except RlError as error:
        printed = str(error)
    else:
        assert str(Reference.parse(printed)) == printed
    assert "\n" not in printed


def test_names_are_read_without_loading_anything_slow() -> None:
    script = (
        "import sys; before = set(sys.modules); import rootless.images.reference;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "rootless" in loaded
    assert not loaded & {"json", "httpx", "trio", "asyncio", "subprocess", "dataclasses", "urllib"}
