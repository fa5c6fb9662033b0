"""The commands on real images and containers, as scripts use them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.oci import Layer, tar_of, write_layout
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module")
def rl(make_rl: Callable[[], Rl], alpine: str) -> Rl:
    """Return the command with a store of these tests' own: they look at all that is in it."""
    return make_rl()


@pytest.fixture(scope="module")
def one(rl: Rl) -> Iterator[str]:
    """Return the name of a container that ended with 3."""
    rl("run", "--name", "one", "--label", "a=b", "alpine", "sh", "-c", "exit 3", check=False)
    yield "one"
    rl("rm", "-f", "-v", "one")


def test_pull_prints_the_full_name_alone_on_stdout(rl: Rl) -> None:
    done = rl("pull", "alpine")
    assert done.stdout == "docker.io/library/alpine:latest\n"
    assert "alpine" in done.stderr
    assert rl("pull", "-q", "alpine").stderr == ""


def test_pull_goes_on_after_a_name_that_fails(rl: Rl) -> None:
    done = rl("pull", "-q", "Alpine", "nosuch/image", "alpine", check=False)
    assert done.returncode == 125
    assert done.stdout == "docker.io/library/alpine:latest\n"
    assert [line[:4] for line in done.stderr.splitlines()] == ["rl: ", "rl: "]


def test_pull_clears_up_what_a_killed_one_left(fresh_rl: Rl) -> None:
    fresh_rl("images")
    garbage = fresh_rl.root / "tmp" / "layer-0123" / "usr"
    garbage.mkdir(parents=True)
    (garbage / "half").write_bytes(b"x")
    fresh_rl("pull", "-q", "alpine")
    assert os.listdir(fresh_rl.root / "tmp") == []


def test_a_store_that_cannot_be_cleared_up_is_said_and_the_pull_counts(fresh_rl: Rl) -> None:
    fresh_rl("run", "--name", "damaged", "alpine", "true")
    (container,) = (fresh_rl.root / "containers").iterdir()
    config = container / "config.json"
    whole = config.read_text()
    config.write_text("{")
    done = fresh_rl("pull", "-q", "alpine")
    assert done.stdout == "docker.io/library/alpine:latest\n"
    assert done.stderr.startswith("rl: cannot clear up ")
    assert fresh_rl("images", "-q").stdout
    config.write_text(whole)
    fresh_rl("rm", "damaged")


def test_images_lists_what_was_pulled(rl: Rl, one: str) -> None:
    header, line = rl("images").stdout.splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert line.split()[:2] == ["alpine", "latest"]
    assert len(rl("images", "nosuch").stdout.splitlines()) == 1


def test_a_template_with_digests_shows_them_unasked(rl: Rl, one: str) -> None:
    shown = rl("images", "--format", "{{.Digest}}").stdout
    assert shown.startswith("sha256:")
    assert rl("images", "--digests", "--format", "{{.Digest}}").stdout == shown


@pytest.mark.parametrize(
    ("line", "found"), [("rl run al", ["alpine", "alpine:latest"]), ("rl stop o", [])]
)
def test_images_to_run_and_containers_to_stop_are_completed(
    rl: Rl, one: str, line: str, found: list[str]
) -> None:
    words = {"COMP_LINE": line, "_RL_COMPLETE": "bash_complete"}
    offered = rl(env=words).stdout.split()
    assert [choice.partition(",")[2] for choice in offered] == found


def test_an_id_from_images_names_the_image(rl: Rl, one: str) -> None:
    (identifier,) = rl("images", "-q").stdout.split()
    assert len(identifier) == 12
    (full,) = rl("images", "-q", "--no-trunc").stdout.split()
    assert full.startswith(f"sha256:{identifier}")
    shown = rl("inspect", "--format", "{{.Id}} {{index .RepoTags 0}}", identifier)
    assert shown.stdout == f"{full} alpine:latest\n"


def test_ps_shows_the_end_of_a_container(rl: Rl, one: str) -> None:
    header, line = rl("ps", "-a", "--filter", "name=one").stdout.splitlines()
    assert header.split("  ")[0] == "CONTAINER ID"
    assert "Exited (3) " in line
    assert line.endswith(" one")
    assert '"sh -c exit 3"' in line


def test_ps_without_all_shows_what_runs(rl: Rl, one: str) -> None:
    assert one not in rl("ps").stdout
    with rl.start(
        "run", "--rm", "-i", "--name", "runs", "alpine", "cat",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        assert rl("ps", "--format", "{{.Names}} {{.State}}").stdout == "runs running\n"
        assert rl("inspect", "-f", "{{.State.Running}}", "runs").stdout == "true\n"
        pid = int(rl("inspect", "-f", "{{.State.Pid}}", "runs").stdout)
        assert os.path.exists(f"/proc/{pid}")
        kept = rl("rmi", "-f", "alpine", check=False)
        assert kept.returncode == 125
        assert "being used by running container runs" in kept.stderr
        refused = rl("rm", "runs", check=False)
        assert refused.returncode == 125
        assert "running" in refused.stderr
        assert rl("rm", "-f", "runs").stdout == "runs\n"
    assert "runs" not in rl("ps", "-a").stdout


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["status=exited", "name=one"], True),
        (["exited=3"], True),
        (["exited=0"], False),
        (["label=a=b"], False),  # for it does not run, and nothing asked for such
        (["status=exited", "label=a=b"], True),
        (["status=exited", "ancestor=alpine"], True),
        (["status=exited", "ancestor=docker.io/library/alpine:latest"], True),
        (["status=exited", "ancestor=nosuch"], False),
    ],
)
def test_ps_filters(rl: Rl, one: str, conditions: list[str], found: bool) -> None:
    options = [word for condition in conditions for word in ("--filter", condition)]
    assert rl("ps", *options, "--format", "{{.Names}}").stdout == ("one\n" if found else "")


def test_ps_json_is_an_object_a_line(rl: Rl, one: str) -> None:
    rows = [json.loads(line) for line in rl("ps", "-a", "--format", "json").stdout.splitlines()]
    (row,) = [row for row in rows if row["Names"] == "one"]
    assert (row["State"], row["Labels"], row["Image"]) == ("exited", "a=b", "alpine")


def test_latest_and_last_count_containers_that_ended(rl: Rl, one: str) -> None:
    assert rl("ps", "-l", "--format", "{{.Names}}").stdout == "one\n"
    assert rl("ps", "-n", "5", "--format", "{{.Names}}").stdout == "one\n"
    assert rl("ps", "-n", "0", "-q").stdout == ""


def test_a_container_is_found_by_the_beginning_of_its_id(rl: Rl, one: str) -> None:
    (identifier,) = rl("ps", "-aq", "--filter", "name=one").stdout.split()
    assert rl("inspect", "-f", "{{.Name}}", identifier[:6]).stdout == "/one\n"


def test_inspect_prints_what_it_found_and_complains_about_the_rest(rl: Rl, one: str) -> None:
    done = rl("inspect", "one", "nosuch", "alpine", check=False)
    assert done.returncode == 125
    assert done.stderr == "rl: no such container, image, volume or network: nosuch\n"
    container, image = json.loads(done.stdout)
    assert container["Name"] == "/one"
    assert container["Image"] == image["Id"]
    assert image["RepoTags"] == ["alpine:latest"]


def test_inspect_of_nothing_is_an_empty_list(rl: Rl) -> None:
    done = rl("inspect", "nosuch", check=False)
    assert (done.returncode, json.loads(done.stdout)) == (125, [])


def test_inspect_can_be_told_where_to_look(rl: Rl, one: str) -> None:
    for arguments in (
        ("image", "inspect", "one"),
        ("inspect", "--type", "image", "one"),
        ("container", "inspect", "alpine"),
        ("inspect", "--type", "container", "alpine"),
    ):
        done = rl(*arguments, check=False)
        assert (done.returncode, json.loads(done.stdout)) == (125, [])
    assert json.loads(rl("container", "inspect", "--format", "json", "one").stdout)


def test_an_image_in_use_is_kept(rl: Rl, one: str) -> None:
    done = rl("rmi", "alpine", check=False)
    assert done.returncode == 125
    assert "one" in done.stderr
    assert rl("images", "-q").stdout


def test_rmi_takes_the_image_and_its_space(fresh_rl: Rl) -> None:
    fresh_rl("pull", "-q", "alpine")
    lines = fresh_rl("rmi", "alpine").stdout.splitlines()
    assert lines[0] == "Untagged: alpine:latest"
    assert lines[-1].startswith("Deleted: sha256:")
    assert fresh_rl("images", "-q").stdout == ""
    for directory in ("images/blobs/sha256", "layers", "tmp"):
        assert os.listdir(fresh_rl.root / directory) == []


def test_a_forced_rmi_leaves_a_container_its_layers(fresh_rl: Rl) -> None:
    fresh_rl("run", "--name", "stays", "alpine", "true")
    fresh_rl("rmi", "-f", "alpine")
    assert fresh_rl("images", "-q").stdout == ""
    layers = fresh_rl("inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", "stays").stdout
    assert all(map(os.path.isdir, layers.strip().split(":")))
    fresh_rl("rm", "stays")


def test_what_is_not_there_can_be_removed_by_force(rl: Rl) -> None:
    for command in ("rm", "rmi"):
        assert rl(command, "nosuch", check=False).returncode == 125
        assert rl(command, "-f", "nosuch").stderr.startswith("rl: no ")


def test_a_name_that_moved_on_leaves_a_dangling_image(
    fresh_rl: Rl, registry: Registry, area: Path
) -> None:
    for number in ("1", "2"):
        layout = area / f"moving-{number}"
        layer = Layer(tar_of({"number": number}), "gzip")
        write_layout(layout, [layer], {"Labels": {"number": number}})
        registry.push(f"oci:{layout}:latest", "library/moving")
        fresh_rl("pull", "-q", "moving")
    shown = fresh_rl("images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    assert sorted(shown.split()) == ["moving:<none>", "moving:latest"]
    (old,) = fresh_rl("images", "-q", "--filter", "dangling=true").stdout.split()
    (new,) = fresh_rl("images", "-q", "--filter", "dangling=false").stdout.split()
    assert fresh_rl("images", "-q", "--filter", "label=number=1").stdout.split() == [old]
    assert fresh_rl("images", "-q", "--filter", "reference=mov*:l*").stdout.split() == [new]
    assert f"Deleted: sha256:{old}" in fresh_rl("rmi", old).stdout


def test_info_says_what_works_here(rl: Rl) -> None:
    value = json.loads(rl("info", "--format", "json").stdout)
    assert value["DockerRootDir"] == str(rl.root)
    assert (value["UserNamespaces"], value["Fuse"]) == ("works", "works")
    # A machine of tests need not delegate cgroups.
    assert [said for said in value["Warnings"] if not said.startswith("no limits")] == []
    assert value["RegistriesConf"] == [str(rl.directory / "registries.conf")]
    assert value["SubUIDs"]


def test_info_says_what_is_missing_and_what_to_do(rl: Rl) -> None:
    # Where the command is, the system's own programs are not.
    done = rl("info", env={"PATH": os.path.dirname(shutil.which("rl") or "")})
    assert "UserNamespaces: fails" in done.stdout
    warnings = [line for line in done.stdout.splitlines() if line.startswith("WARNING")]
    (warning,) = [line for line in warnings if "newuidmap is not installed" in line]
    assert "uidmap" in warning


def offered(rl: Rl, line: str) -> list[str]:
    """Return what completes the last word of a line."""
    environment = {"_RL_COMPLETE": "bash_complete", "COMP_LINE": line}
    return [choice.partition(",")[2] for choice in rl(env=environment).stdout.split()]


@pytest.fixture
def runs(rl: Rl, one: str) -> Iterator[str]:
    """Return the name of a container that runs, beside the one that does not."""
    rl("run", "-d", "--name", "runs", "alpine", "sh", "-c", "ln -s / /etc/l; exec sleep 1000")
    yield "runs"
    rl("rm", "-f", "runs")


def test_containers_are_completed_where_their_state_fits(rl: Rl, runs: str) -> None:
    for command in ("stop", "exec", "kill", "attach", "pause", "top", "stats"):
        assert offered(rl, f"rl {command} ") == ["runs"]
    assert offered(rl, "rl start ") == ["one"]
    assert offered(rl, "rl unpause ") == []
    for command in ("rm", "logs", "wait", "restart"):
        assert offered(rl, f"rl {command} ") == ["one", "runs"]


def test_paths_in_a_container_are_completed(rl: Rl, runs: str) -> None:
    assert offered(rl, "rl cp ") == ["one:", "runs:"]
    assert offered(rl, "rl cp . ru") == ["runs:"]
    assert offered(rl, "rl cp runs:/et") == ["runs:/etc/"]
    assert offered(rl, "rl cp runs:/etc/mo") == ["runs:/etc/motd"]
    # A link is followed inside, where it leads to the container's root.
    assert offered(rl, "rl cp runs:/etc/l/etc/mo") == ["runs:/etc/l/etc/motd"]
    assert offered(rl, f"rl cp runs:/etc/l{rl.directory}/") == [f"runs:/etc/l{rl.directory}/"]


def test_bash_completes_what_goes_on_after_a_colon_or_an_equals_sign(rl: Rl, runs: str) -> None:
    shell: pexpect.spawn[str] = pexpect.spawn(
        "bash", ["--norc", "--noprofile"],
        env=os.environ | rl.environment | {"PS1": "HOST> "}, encoding="utf-8", timeout=PATIENCE,
    )  # fmt: skip
    try:
        shell.expect_exact("HOST> ")
        shell.sendline('eval "$(rl completion bash)"')
        shell.expect_exact("HOST> ")
        shell.send("rl cp runs:/et\tmot\t - | grep -a bus\n")
        shell.expect_exact("hello from busybox")
        shell.expect_exact("HOST> ")
        shell.send("rl ps --filter=nam\trun\x15")
        shell.expect_exact("rl ps --filter=name=")
    finally:
        shell.close(force=True)


def test_names_are_completed(rl: Rl, one: str) -> None:
    def complete(line: str) -> list[str]:
        return offered(rl, line)

    assert complete("rl rm o") == ["one"]
    assert complete("rl rmi al") == ["alpine", "alpine:latest"]
    assert complete("rl inspect ") == ["one", "alpine", "alpine:latest"]
    assert complete("rl --root /nowhere rm o") == []


def test_scripts_can_ask_whether_there_is_a_container(rl: Rl, one: str) -> None:
    assert rl("container", "exists", one).stdout == ""
    done = rl("container", "exists", "none", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
