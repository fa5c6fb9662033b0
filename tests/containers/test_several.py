"""Commands about the containers that are there: their processes, what they take, clearing up."""

from __future__ import annotations

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
