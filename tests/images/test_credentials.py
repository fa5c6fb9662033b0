"""Credentials are found where other tools keep them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rootless.errors import RlError
from rootless.images.credentials import Credentials
from rootless.images.credentials import find as find_for
from rootless.images.reference import Reference


def find(registry: str, repository: str, environment: dict[str, str]) -> Credentials | None:
    return find_for(Reference.parse(f"{registry}/{repository}"), environment)


def entry(name: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def in_file(tmp_path: Path, content: Any, registry: str, repository: str) -> Credentials | None:
    file = write(tmp_path / "auth.json", content)
    return find(registry, repository, {"REGISTRY_AUTH_FILE": str(file)})


def test_files_are_searched_in_order_until_one_knows_the_registry(home: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(home / "run"), "DOCKER_CONFIG": str(home / "docker")}
    write(home / "run/containers/auth.json", {"auths": {"a.org": entry("run", "1")}})
    write(
        home / ".config/containers/auth.json",
        {"auths": {"a.org": entry("config", "2"), "b.org": entry("config", "2")}},
    )
    write(home / "docker/config.json", {"auths": {"c.org": entry("docker", "3")}})
    assert find("a.org", "x", environment) == Credentials("run", "1")
    assert find("b.org", "x", environment) == Credentials("config", "2")
    assert find("c.org", "x", environment) == Credentials("docker", "3")
    assert find("d.org", "x", environment) is None


def test_docker_keeps_them_in_the_home_directory_by_default(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"a.org": entry("name", "p:w")}})
    assert find("a.org", "x", {}) == Credentials("name", "p:w")


def test_a_file_that_is_named_is_the_only_one(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"a.org": entry("docker", "1")}})
    assert in_file(home, {"auths": {}}, "a.org", "x") is None


def test_the_longest_path_wins(tmp_path: Path) -> None:
    content = {
        "auths": {
            "r.local": entry("host", "1"),
            "r.local/team": entry("team", "2"),
            "r.local/team/user/image": entry("image", "3"),
        }
    }
    assert in_file(tmp_path, content, "r.local", "team/user/image") == Credentials("image", "3")
    assert in_file(tmp_path, content, "r.local", "team/user/other") == Credentials("team", "2")
    assert in_file(tmp_path, content, "r.local", "teammate/x") == Credentials("host", "1")
    assert in_file(tmp_path, content, "r.local:5000", "team/x") is None


@pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/", "index.docker.io"])
def test_every_name_of_docker_hub_is_docker_io(tmp_path: Path, key: str) -> None:
    content = {"auths": {key: entry("me", "secret")}}
    assert in_file(tmp_path, content, "docker.io", "library/alpine") == Credentials("me", "secret")


def test_an_identity_token_goes_before_a_password(tmp_path: Path) -> None:
    content = {"auths": {"a.org": {**entry("me", "x"), "identitytoken": "refresh"}}}
    assert in_file(tmp_path, content, "a.org", "x") == Credentials(identity_token="refresh")


def test_an_empty_entry_or_file_says_nothing(tmp_path: Path) -> None:
    assert in_file(tmp_path, {"auths": {"a.org": {}}}, "a.org", "x") is None
    assert in_file(tmp_path, {"auths": None}, "a.org", "x") is None
    assert in_file(tmp_path, "", "a.org", "x") is None


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        "[" * 100_000,
        {"auths": []},
        {"auths": {"a.org": {"auth": "no base64!"}}},
        {"auths": {"a.org": {"auth": 3}}},
        {"auths": {"a.org": {"auth": base64.b64encode(b"no colon").decode()}}},
        {"auths": {"a.org": {"auth": base64.b64encode(b"\xff:\xff").decode()}}},
    ],
)
def test_a_file_that_cannot_be_understood_is_named(tmp_path: Path, content: Any) -> None:
    with pytest.raises(RlError, match=r"cannot read credentials from .*auth\.json"):
        in_file(tmp_path, content, "a.org", "x")


def test_secrets_are_not_shown_by_a_traceback() -> None:
    assert "hush" not in repr(Credentials("me", "hush", "hush"))


# Credential helpers


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put a helper named ``test`` on PATH: it knows good.org and docker.io, and records."""
    program = tmp_path / "bin/docker-credential-test"
    write(
        program,
        f"""#!/bin/sh
        read -r server || true
        echo "$1 $server" >> {tmp_path}/asked
        case $server in
            good.org|https://index.docker.io/v1/)
                echo '{{"ServerURL": "x", "Username": "me", "Secret": "from-helper"}}';;
            token.org) echo '{{"Username": "<token>", "Secret": "identity"}}';;
            odd.org) echo 'me:from-helper';;
            locked.org) echo 'the keyring is locked'; exit 1;;
            *) echo 'credentials not found in native keychain'; exit 1;;
        esac
        """,
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


def test_a_helper_is_asked_for_its_registry_only(helper: Path, tmp_path: Path) -> None:
    content = {
        "credHelpers": {"good.org": "test"},
        "auths": {"good.org": entry("x", "y"), "other.org": entry("other", "file")},
    }
    assert in_file(tmp_path, content, "good.org", "x") == Credentials("me", "from-helper")
    assert in_file(tmp_path, content, "other.org", "x") == Credentials("other", "file")
    assert helper.read_text() == "get good.org\n"


def test_a_store_is_asked_when_the_file_has_no_secret(helper: Path, tmp_path: Path) -> None:
    content = {"credsStore": "test", "auths": {"good.org": {}, "file.org": entry("a", "b")}}
    assert in_file(tmp_path, content, "good.org", "x") == Credentials("me", "from-helper")
    assert in_file(tmp_path, content, "file.org", "x") == Credentials("a", "b")
    assert in_file(tmp_path, content, "docker.io", "x") == Credentials("me", "from-helper")
    assert in_file(tmp_path, content, "token.org", "x") == Credentials(identity_token="identity")
    assert in_file(tmp_path, content, "unknown.org", "x") is None
    assert "get https://index.docker.io/v1/\n" in helper.read_text()


@pytest.mark.parametrize(
    ("name", "registry", "reason"),
    [
        ("test", "locked.org", "failed for locked.org: the keyring is locked"),
        ("test", "odd.org", "gave no credentials that can be read"),
        ("absent", "x.org", "docker-credential-absent, named in .* is not installed"),
        ("../../bin/sh", "x.org", "is not the name of a credential helper"),
        (["test"], "x.org", "is not the name of a credential helper"),
    ],
)
def test_a_helper_that_does_not_work_is_named(
    helper: Path, tmp_path: Path, name: Any, registry: str, reason: str
) -> None:
    with pytest.raises(RlError, match=reason):
        in_file(tmp_path, {"credsStore": name}, registry, "x")
