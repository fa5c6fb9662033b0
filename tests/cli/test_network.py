"""`rl network`, as people and scripts use it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network

import pytest

from tests.support.runner import Rl


def lines(rl: Rl, *arguments: str) -> list[str]:
    return rl("network", *arguments).stdout.splitlines()


def test_network_is_made_listed_shown_and_removed(fresh_rl: Rl) -> None:
    ignored = ("--attachable", "--scope", "local", "--ipam-driver", "default")
    options = ("--label", "team=db", "--internal", "-o", "mtu=1400", "-d", "bridge", *ignored)
    (identity,) = lines(
        fresh_rl, "create", *options, "--subnet", "10.199.0.0/24", "--gateway", "10.199.0.9", "back"
    )
    assert lines(fresh_rl, "ls") == [
        "NETWORK ID     NAME      DRIVER    SCOPE",
        f"{identity[:12]}   back      bridge    local",
        *lines(fresh_rl, "ls", "--noheading", "--filter", "type=builtin"),
    ]
    (found,) = json.loads(fresh_rl("network", "inspect", identity[:9]).stdout)
    assert (found["Name"], found["Id"], found["Driver"]) == ("back", identity, "bridge")
    assert found["IPAM"]["Config"] == [{"Subnet": "10.199.0.0/24", "Gateway": "10.199.0.9"}]
    assert (found["Internal"], found["Labels"]) == (True, {"team": "db"})
    assert (found["Options"], found["Containers"]) == ({"mtu": "1400"}, {})
    assert fresh_rl("inspect", "-f", "{{.Name}}", "back").stdout == "back\n"
    assert fresh_rl("network", "exists", "back").returncode == 0
    assert lines(fresh_rl, "rm", "back") == ["back"]
    assert fresh_rl("network", "exists", "back", check=False).returncode == 1
    events = fresh_rl("events", "--since", "1h", "--until", "0s", "--filter", "type=network")
    assert [line.split()[2] for line in events.stdout.splitlines()] == ["create", "destroy"]


def test_docker_lists_the_same_three_that_are_always_there(fresh_rl: Rl) -> None:
    assert lines(fresh_rl, "list", "--format", "{{.Name}} {{.Driver}}") == [
        "bridge bridge", "host host", "none null",
    ]  # fmt: skip
    done = fresh_rl("network", "remove", "bridge", check=False)
    assert done.stderr == "rl: bridge is a pre-defined network and cannot be removed\n"
    assert lines(fresh_rl, "inspect", "-f", "{{.Driver}}", "none") == ["null"]


def test_list_shows_what_the_filters_let_through(fresh_rl: Rl) -> None:
    (first,) = lines(fresh_rl, "create", "--label", "a=1", "first")
    (second,) = lines(fresh_rl, "create", "--label", "a=2", "second")

    def found(*conditions: str) -> list[str]:
        options = [word for condition in conditions for word in ("--filter", condition)]
        return lines(fresh_rl, "ls", "--format", "{{.Name}}", "--filter", "type=custom", *options)

    assert found() == ["first", "second"]
    assert found("name=irs") == found("label=a=1") == found(f"id={first[:5]}") == ["first"]
    assert found("label!=a=1") == ["second"]
    assert found("label=a", "driver=bridge", "scope=local", "dangling=true") == ["first", "second"]
    assert found("dangling=false") == found("driver=null") == found("until=1h") == []
    assert lines(fresh_rl, "ls", "-q", "--no-trunc", "--filter", "name=second") == [second]
    assert lines(fresh_rl, "ls", "--filter", "name=second", "--format", '{{.Label "a"}}') == ["2"]
    done = fresh_rl("network", "ls", "--filter", "shape=round", check=False)
    assert (done.returncode, "rl: invalid filter" in done.stderr) == (125, True)


def test_network_of_a_name_that_is_taken_is_refused_or_ignored(fresh_rl: Rl) -> None:
    made = lines(fresh_rl, "create", "net")
    done = fresh_rl("network", "create", "net", check=False)
    assert (done.returncode, done.stderr) == (125, "rl: network with name net already exists\n")
    assert lines(fresh_rl, "create", "--ignore", "net") == made


def test_networks_made_at_once_have_subnets_of_their_own(fresh_rl: Rl) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: lines(fresh_rl, "create", f"net{number}"), range(8)))
    names = [f"net{number}" for number in range(8)]
    found = json.loads(fresh_rl("network", "inspect", *names).stdout)
    subnets = {ip_network(one["IPAM"]["Config"][0]["Subnet"]) for one in found}
    assert len(subnets) == 8
    assert all(str(subnet).startswith("10.") for subnet in subnets)


def test_prune_removes_all_that_nobody_has(fresh_rl: Rl) -> None:
    for label, name in (("keep=1", "kept"), ("keep=0", "lost")):
        fresh_rl("network", "create", "--label", label, name)
    asked = fresh_rl("network", "prune", input="n\n", check=False)
    assert "WARNING! This will remove all custom networks" in asked.stdout
    assert lines(fresh_rl, "prune", "-f", "--filter", "label!=keep=1") == [
        "Deleted Networks:", "lost", "",
    ]  # fmt: skip
    assert "kept" in fresh_rl("system", "prune", "-f").stdout
    assert lines(fresh_rl, "ls", "-q", "--filter", "type=custom") == []


def test_damaged_definition_disturbs_no_other_command_and_can_be_removed(fresh_rl: Rl) -> None:
    fresh_rl("network", "create", "fine")
    (fresh_rl.root / "networks/bad.json").write_text("{")
    assert lines(fresh_rl, "ls", "--filter", "type=custom", "--format", "{{.Name}}") == ["fine"]
    fresh_rl("network", "create", "other")
    done = fresh_rl("network", "inspect", "bad", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert done.stderr.startswith("rl: the definition of the network bad is damaged: ")
    assert lines(fresh_rl, "rm", "bad") == ["bad"]


@pytest.mark.parametrize("arguments", [("rm", "nosuch"), ("inspect", "nosuch"), ("rm", "../fine")])
def test_network_that_is_not_there_is_an_error(fresh_rl: Rl, arguments: tuple[str, str]) -> None:
    done = fresh_rl("network", *arguments, check=False)
    assert (done.returncode, done.stderr) == (125, f"rl: no such network: {arguments[1]}\n")
    assert fresh_rl("network", "rm", "-f", "nosuch").returncode == 0
