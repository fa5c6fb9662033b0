"""Commands about the containers that are there: their processes, what they take, clearing up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runner import Rl


def test_top_shows_the_processes_of_one_container_and_of_no_other(rl: Rl) -> None:
    for name in ("first", "second"):
        rl("run", "-d", "--name", name, "alpine", "sleep", "1000")
    rl("exec", "-d", "-u", "1000", "first", "sleep", "2000")
    lines = rl("top", "first").stdout.splitlines()
    assert lines[0].split()[:2] == ["UID", "PID"]
    assert sorted(line.split()[-2:] for line in lines[1:]) == [["sleep", "1000"], ["sleep", "2000"]]
    lines = rl("top", "first", "-eo", "pid,comm").stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["COMMAND", "sleep", "sleep"]
    rl("rm", "-f", "first", "second")
    rl("create", "--name", "first", "alpine", "true")
    done = rl("top", "first", check=False)
    assert (done.returncode, done.stderr) == (125, "rl: container first is not running\n")
    rl("rm", "first")


def test_prune_removes_what_does_not_run_and_says_how_much_that_was(fresh_rl: Rl) -> None:
    running = fresh_rl("run", "-q", "-d", "alpine", "sleep", "1000").stdout.strip()
    # Another user's directory, too.
    script = "mkdir -m 700 /d; head -c 5000 /dev/zero > /d/f; chown -R 1000 /d"
    fresh_rl("run", "--name", "big", "alpine", "sh", "-c", script)
    kept = fresh_rl("create", "--label", "kept", "alpine", "true").stdout.strip()
    sizes = fresh_rl("ps", "-a", "-s", "--format", "{{.Names}} {{.Size}}").stdout
    assert any(line.startswith("big 5kB (virtual ") for line in sizes.splitlines())
    assert "SIZE" in fresh_rl("ps", "-s").stdout.splitlines()[0]
    assert fresh_rl("container", "prune", input="n\n").stdout.count("Deleted") == 0
    done = fresh_rl("container", "prune", "-f", "--filter", "label=kept").stdout
    assert done == f"Deleted Containers:\n{kept}\n\nTotal reclaimed space: 0B\n"
    done = fresh_rl("container", "prune", "-f", "--filter", "until=1h").stdout
    assert done == "Total reclaimed space: 0B\n"
    assert fresh_rl("container", "prune", input="y\n").stdout.endswith(
        "\nTotal reclaimed space: 5kB\n"
    )
    assert fresh_rl("ps", "-a", "-q", "--no-trunc").stdout.strip() == running
    fresh_rl("rm", "-f", running)


def test_ps_is_in_the_order_that_was_asked_for_and_without_its_heading(rl: Rl) -> None:
    rl("create", "--name", "b-first", "--label", "sorted", "alpine", "cat")
    rl("create", "--name", "a-second", "--label", "sorted", "alpine", "zcat")
    rl("run", "--name", "c-third", "--label", "sorted", "alpine", "sh", "-c", "echo x > /f")

    def names(*options: str) -> list[str]:
        shown = rl("ps", "-a", "--filter", "label=sorted", *options, "--format", "{{.Names}}")
        return [name[0] for name in shown.stdout.split()]

    try:
        assert names() == ["c", "a", "b"]
        assert names("--sort", "created") == ["b", "a", "c"]
        assert names("--sort", "names") == ["a", "b", "c"]
        assert names("--sort", "command") == ["b", "c", "a"]
        assert names("--sort=size")[-1] == names("--sort=status")[-1] == "c"
        plain = rl("ps", "-a", "--noheading", "--filter", "label=sorted").stdout
        assert len(plain.splitlines()) == 3
        assert "Invalid value" in rl("ps", "--sort", "colour", check=False).stderr
    finally:
        rl("rm", "a-second", "b-first", "c-third")


def test_containers_are_named_by_files_and_need_not_be_there(rl: Rl, tmp_path: Path) -> None:
    """As the units do that Podman writes for systemd."""
    file = str(tmp_path / "id")
    rl("run", "-d", "--cidfile", file, "--name", "unit", "alpine", "sleep", "1000")
    identifier = Path(file).read_text()
    assert rl("kill", "-s", "CONT", "--cidfile", file).stdout == f"{identifier}\n"
    assert rl("restart", "-t", "0", "--cidfile", file).stdout == f"{identifier}\n"
    assert rl("stop", "-t", "0", "--ignore", "--cidfile", file, "none").stdout == f"{identifier}\n"
    assert rl("rm", "-f", "-i", "--cidfile", file, "none").stdout == f"{identifier}\n"
    for command in ("stop", "rm"):
        assert rl(command, "--ignore", "--cidfile", file, "none").stdout == ""
        assert "no such container" in rl(command, "--cidfile", file, check=False).stderr
        done = rl(command, "--cidfile", f"{file}.none", check=False)
        assert done.stderr == (
            f"rl: cannot read the container ID file {file}.none: No such file or directory\n"
        )
        assert rl(command, "-i", "--cidfile", f"{file}.none").stderr == ""
    assert "Missing argument" in rl("rm", check=False).stderr
    assert rl("wait", "--ignore", "none").stdout == "-1\n"
    assert rl("wait", "none", check=False).returncode == 125


def test_rm_stops_first_if_a_time_is_given(rl: Rl) -> None:
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    rl("run", "-d", "-v", "told:/v", "--name", "orderly", "alpine", "sh", "-c",
       script.replace("exit 3", "echo told > /v/f; exit 3"))  # fmt: skip
    while "up" not in rl("logs", "orderly").stdout:
        pass
    assert rl("rm", "-t", "60", "orderly").stdout == "orderly\n"
    assert rl("run", "--rm", "-v", "told:/v", "alpine", "cat", "/v/f").stdout == "told\n"
    rl("volume", "rm", "told")
    rl("run", "-d", "--rm", "--name", "brief", "alpine", "sleep", "1000")
    assert rl("rm", "-t", "0", "brief").stdout == "brief\n"
    assert "brief" not in rl("ps", "-a").stdout


@pytest.mark.parametrize("command", ["create", "run -d"])
def test_container_takes_the_place_of_the_one_that_has_its_name(rl: Rl, command: str) -> None:
    first = rl("run", "-d", "--name", "place", "alpine", "sleep", "1000").stdout
    options = (*command.split(), "--replace")
    assert rl(*options, "--name", "place", "nosuch/image", check=False).returncode == 125
    assert rl("ps", "-q", "--no-trunc", "--filter", "name=place").stdout == first
    # A name that is the beginning of its ID is another name.
    third = rl(*options, "--name", first[:6], "alpine", "sleep", "1000").stdout
    assert rl("ps", "-q", "--no-trunc", "--filter", "name=place").stdout == first
    second = rl(*options, "--name", "place", "alpine", "sleep", "1000").stdout
    assert rl("ps", "-aq", "--no-trunc", "--filter", "name=place").stdout == second != first
    assert "give it with --name" in rl(*options, "alpine", check=False).stderr
    rl("rm", "-f", second.strip(), third.strip())


def test_ps_chooses_by_age_by_volume_and_by_network(rl: Rl) -> None:
    rl("create", "--name", "old", "--network", "none", "-v", "vol:/data", "alpine", "true")
    rl("create", "--name", "new", "alpine", "true")

    def shown(condition: str) -> list[str]:
        names = rl("ps", "-a", "--filter", condition, "--format", "{{.Names}}").stdout.split()
        return sorted(names)

    assert shown("before=new") == ["old"]
    assert shown("since=old") == ["new"]
    assert shown("volume=vol") == shown("volume=/data") == ["old"]
    assert shown("volume=other") == []
    assert shown("network=pasta") == ["new"]
    assert "no such container" in rl("ps", "--filter", "since=none", check=False).stderr
    rl("rm", "-v", "old", "new")
