"""Images that another program put into the store: it is an OCI layout, so anything may."""

from __future__ import annotations

import os
import subprocess

from tests.support.runner import Rl


def put(rl: Rl, alpine: str, name: str) -> None:
    """Copy an image from the registry into the store by skopeo."""
    rl("images")
    (rl.root / "images").mkdir(parents=True, exist_ok=True)
    options = ["--insecure-policy", "--src-tls-verify=false"]
    source = f"docker://{rl.registry_host}/library/{alpine}"
    subprocess.run(
        ["skopeo", "copy", "-q", *options, source, f"oci:{rl.root}/images:{name}"], check=True
    )


def test_image_that_skopeo_put_there_is_unpacked_by_the_first_who_runs_it(
    fresh_rl: Rl, alpine: str
) -> None:
    put(fresh_rl, alpine, "localhost/mine:1")
    shown = fresh_rl("images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    assert shown == "localhost/mine:1\n"
    first = fresh_rl("run", "--rm", "--pull", "never", "localhost/mine:1", "cat", "/etc/motd")
    assert first.stdout == "hello from busybox\n"
    assert first.stderr.count("Pull complete") == 2
    again = fresh_rl("run", "--rm", "localhost/mine:1", "true")
    assert (again.stdout, again.stderr) == ("", "")


def test_it_is_unpacked_by_create_too_and_silently_if_that_is_wanted(
    fresh_rl: Rl, alpine: str
) -> None:
    put(fresh_rl, alpine, "localhost/mine")
    done = fresh_rl("create", "-q", "--name", "made", "localhost/mine", "true")
    assert done.stderr == ""
    fresh_rl("start", "-a", "made")
    fresh_rl("rm", "made")


def test_layer_that_is_not_what_the_image_says_is_refused(fresh_rl: Rl, alpine: str) -> None:
    put(fresh_rl, alpine, "localhost/mine")
    blobs = fresh_rl.root / "images/blobs/sha256"
    largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-4] + b"....")
    done = fresh_rl("run", "--rm", "localhost/mine", "true", check=False)
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1].startswith("rl: cannot unpack localhost/mine: ")
    assert fresh_rl("ps", "-aq").stdout == ""
    assert len(os.listdir(fresh_rl.root / "layers")) <= 1


def test_name_without_a_registry_is_of_localhost_first(fresh_rl: Rl, alpine: str) -> None:
    """Podman's rule for what is here."""
    fresh_rl("pull", "-q", alpine)
    put(fresh_rl, alpine, "localhost/mine")
    assert fresh_rl("run", "-q", "--rm", "mine", "echo", "found").stdout == "found\n"
    fresh_rl("create", "--name", "made", "mine:latest", "true")
    shown = fresh_rl("ps", "-a", "--filter", "ancestor=mine", "--format", "{{.Names}}").stdout
    assert shown == "made\n"
    fresh_rl("rm", "made")
    assert fresh_rl("images", "mine", "--format", "{{.Repository}}").stdout == "localhost/mine\n"
    tags = "{{index .RepoTags 0}} {{len .RepoTags}}"
    assert fresh_rl("image", "inspect", "-f", tags, "mine").stdout.endswith(" 2\n")
    assert fresh_rl("rmi", "mine").stdout == "Untagged: localhost/mine:latest\n"
    assert fresh_rl("run", "--rm", "--pull", "never", "mine", "true", check=False).returncode == 125
    assert fresh_rl("images", "--format", "{{.Repository}}").stdout == f"{alpine}\n"
    put(fresh_rl, alpine, f"localhost/{alpine}")
    assert fresh_rl("rmi", alpine).stdout == f"Untagged: localhost/{alpine}:latest\n"
    assert "Deleted: " in fresh_rl("rmi", alpine).stdout
