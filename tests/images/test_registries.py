"""registries.conf redirects, forbids and loosens as containers-registries.conf(5) says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless.errors import RlError
from rootless.images import registries
from rootless.images.reference import Reference
from rootless.images.registries import endpoints, load

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put the system's configuration where the test can write it."""
    monkeypatch.setattr(registries, "SYSTEM_FILE", tmp_path / "etc/registries.conf")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "etc/registries.conf"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tried(tmp_path: Path, text: str, name: str) -> list[str]:
    """Return where ``name`` is looked for under a configuration, marked as ``insecure!``."""
    file = write(tmp_path / "chosen.conf", text)
    found = load({"CONTAINERS_REGISTRIES_CONF": str(file)})
    return [
        f"{endpoint.reference}{'!' if endpoint.insecure else ''}"
        for endpoint in endpoints(Reference.parse(name), found)
    ]


def test_without_configuration_the_reference_itself_is_the_only_place() -> None:
    reference = Reference.parse("quay.io/a/b:1")
    (endpoint,) = endpoints(reference, load({}))
    assert (endpoint.reference, endpoint.insecure, endpoint.is_mirror) == (reference, False, False)


def test_mirrors_come_first_in_their_order_and_the_location_last(tmp_path: Path) -> None:
    text = """
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example.net/bar"
        [[registry.mirror]]
        location = "mirror-0.local/for-foo"
        [[registry.mirror]]
        location = "mirror-1.local:5000"
        insecure = true
    """
    assert tried(tmp_path, text, "example.com/foo/image:1") == [
        "mirror-0.local/for-foo/image:1",
        "mirror-1.local:5000/image:1!",
        "internal.example.net/bar/image:1",
    ]
    assert tried(tmp_path, text, "example.com/foobar/image:1") == ["example.com/foobar/image:1"]


def test_the_air_gapped_site_redirects_docker_io_and_its_short_names(tmp_path: Path) -> None:
    text = """
        [[registry]]
        prefix = "docker.io"
        location = "registry.site:5000/hub"
        insecure = true
    """
    assert tried(tmp_path, text, "alpine") == ["registry.site:5000/hub/library/alpine:latest!"]
    assert tried(tmp_path, text, "u/x@" + DIGEST) == [f"registry.site:5000/hub/u/x@{DIGEST}!"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("h.org/a/b/c:1", "three.org/c:1"),
        ("h.org/a/b:1", "three.org/x:1"),
        ("h.org/a/bb:1", "two.org/bb:1"),
        ("h.org/ab:1", "one.org/ab:1"),
        ("h.org:80/ab:1", "h.org:80/ab:1"),
    ],
)
def test_the_longest_prefix_that_ends_at_a_separator_wins(
    tmp_path: Path, name: str, place: str
) -> None:
    text = """
        [[registry]]
        prefix = "h.org/a"
        location = "two.org"
        [[registry]]
        prefix = "h.org/a/b"
        location = "three.org"
        [[registry]]
        prefix = "h.org/a/b:1"
        location = "three.org/x:1"
        [[registry]]
        prefix = "h.org"
        location = "one.org"
    """
    assert tried(tmp_path, text, name) == [place]


def test_a_wildcard_matches_subdomains_and_rewrites_nothing_without_a_location(
    tmp_path: Path,
) -> None:
    text = """
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry]]
        prefix = "*.moved.com"
        location = "here.org/moved"
    """
    assert tried(tmp_path, text, "a.b.example.com/x:1") == ["a.b.example.com/x:1!"]
    assert tried(tmp_path, text, "a.example.com:5000/x:1") == ["a.example.com:5000/x:1!"]
    assert tried(tmp_path, text, "example.com/x:1") == ["example.com/x:1"]
    assert tried(tmp_path, text, "evil.org/a.example.com:1") == ["evil.org/a.example.com:1"]
    assert tried(tmp_path, text, "a.moved.com/x:1") == ["here.org/moved/x:1"]


def test_a_mirror_can_be_for_tags_or_for_digests_only(tmp_path: Path) -> None:
    text = """
        [[registry]]
        location = "h.org"
        [[registry.mirror]]
        location = "tags.org"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "digests.org"
        pull-from-mirror = "digest-only"
    """
    assert tried(tmp_path, text, "h.org/x:1") == ["tags.org/x:1", "h.org/x:1"]
    assert tried(tmp_path, text, f"h.org/x@{DIGEST}") == [
        f"digests.org/x@{DIGEST}",
        f"h.org/x@{DIGEST}",
    ]
    text = text.replace('"h.org"', '"h.org"\nmirror-by-digest-only = true')
    assert tried(tmp_path, text, "h.org/x:1") == ["h.org/x:1"]


def test_a_blocked_registry_is_refused_with_the_file_that_blocks_it(tmp_path: Path) -> None:
    text = '[[registry]]\nprefix = "docker.io"\nlocation = "x.org"\nblocked = true'
    with pytest.raises(RlError, match=r"docker\.io is blocked for alpine by .*/chosen\.conf"):
        tried(tmp_path, text, "alpine")


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:80"])
def test_loopback_is_insecure_unasked_as_in_docker(host: str) -> None:
    (endpoint,) = endpoints(Reference.parse(f"{host}/x"), ())
    assert endpoint.insecure


@pytest.mark.parametrize("host", ["127.evil.org", "127.0.0.1.evil.org:80", "localhost.org"])
def test_a_name_that_only_looks_like_loopback_is_not(host: str) -> None:
    (endpoint,) = endpoints(Reference.parse(f"{host}/x"), ())
    assert not endpoint.insecure


def prefixes(environment: dict[str, str]) -> dict[str, str]:
    return {registry.prefix: registry.location for registry in load(environment)}


def table(prefix: str, location: str) -> str:
    return f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\n'


def test_drop_ins_are_read_in_order_of_their_names_after_the_file(
    no_system_file: Path, tmp_path: Path
) -> None:
    write(no_system_file, table("a.org", "main.org") + table("b.org", "main.org"))
    drop_ins = no_system_file.with_name("registries.conf.d")
    write(drop_ins / "20.conf", table("a.org", "twenty.org"))
    write(drop_ins / "10.conf", table("a.org", "ten.org") + table("c.org", "ten.org"))
    write(drop_ins / "30.disabled", table("a.org", "never.org"))
    home = tmp_path / "config"
    write(home / "containers/registries.conf.d/own.conf", table("c.org", "own.org"))
    assert prefixes({"XDG_CONFIG_HOME": str(home)}) == {
        "a.org": "twenty.org",
        "b.org": "main.org",
        "c.org": "own.org",
    }


def test_the_users_own_file_stands_for_all_of_the_systems(
    no_system_file: Path, tmp_path: Path
) -> None:
    write(no_system_file, table("a.org", "system.org"))
    write(no_system_file.with_name("registries.conf.d") / "1.conf", table("b.org", "system.org"))
    own = tmp_path / "home/.config/containers/registries.conf"
    write(own, table("c.org", "own.org"))
    write(own.with_name("registries.conf.d") / "1.conf", table("d.org", "own.org"))
    assert prefixes({}) == {"c.org": "own.org", "d.org": "own.org"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[registry]\n", "cannot read"),
        ("\xff", "cannot read"),
        ("[registries.search]\nregistries = ['a']", "version 1"),
        ("[[registry]]\ninsecure = true", "neither prefix nor location"),
        ("[[registry]]\nlocation = 'h.org'\ninsecure = 'no'", "insecure is true or false"),
        ("[[registry]]\nlocation = 'https://h.org'", "host[:port][/path]"),
        ("[[registry]]\nprefix = 'a.*.org'\nlocation = 'b.org'", "'*.' stands before"),
        ("[[registry]]\nprefix = '*.a.org/x'\nlocation = 'b.org'", "'*.' stands before"),
        ("[[registry]]\nlocation = 'h.org'\n[[registry.mirror]]\ninsecure = true", "no location"),
        (
            "[[registry]]\nlocation='h.org'\nmirror = [{location='m.org', pull-from-mirror=1}]",
            "pull-from-mirror is one of",
        ),
        ("[registry]\nlocation = 'h.org'", "written as [[…registry]]"),
        ("[[registry]]\nprefix = 'h.org'\nlocation = 'short'", "does not begin with a host"),
        ("[[registry]]\nprefix = 'h.org'\nlocation = 'm.org/UPPER'", "does not fit"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_the_file(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(RlError) as refusal:
        tried(tmp_path, text, "h.org/x")
    assert reason in str(refusal.value)
    assert str(tmp_path / "chosen.conf") in str(refusal.value)


def test_a_file_that_is_named_and_missing_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(RlError, match="does not exist"):
        load({"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "none.conf")})
