"""Definitions of user networks: subnets, names, options, and what of it is refused."""

from __future__ import annotations

import json
import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import NetworkNotFound, RlError
from rootless.networks.definition import (
    Definition,
    IPNetwork,
    Pool,
    check_name,
    check_options,
    make_pools,
    parse,
)
from rootless.networks.definitions import Definitions, taken_subnets


def pools(
    *subnets: str,
    gateways: tuple[str, ...] = (),
    ranges: tuple[str, ...] = (),
    ipv6: bool = False,
    taken: tuple[str, ...] = (),
) -> tuple[Pool, ...]:
    others: list[IPNetwork] = list(map(ip_network, taken))
    return make_pools(subnets, gateways, ranges, ipv6=ipv6, taken=others, random=b"\1\2\3\4\5")


def definition(name: str = "net", **fields: Any) -> Definition:
    known = {
        "id": "a" * 64,
        "name": name,
        "created": "2026-01-01T00:00:00Z",
        "pools": (Pool("10.89.0.0/24", "10.89.0.1"),),
        "internal": False,
        "dns": True,
        "labels": {},
        "options": {},
    }
    return Definition(**{**known, **fields})


def test_network_gets_the_first_subnet_that_is_free() -> None:
    assert pools() == (Pool("10.89.0.0/24", "10.89.0.1"),)
    (second,) = pools(taken=("10.89.0.0/25", "10.89.1.128/25", "192.168.0.0/16"))
    assert second.subnet == "10.89.2.0/24"
    (other,) = pools(taken=("10.0.0.0/8", "172.16.0.0/24"))
    assert other.subnet == "172.16.1.0/24"
    with pytest.raises(RlError, match="no private subnet is free"):
        pools(taken=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def test_network_with_ipv6_has_a_subnet_of_each() -> None:
    four, six = pools(ipv6=True)
    assert (four.version, six) == (4, Pool("fd01:203:405::/64", "fd01:203:405::1"))
    four, six = pools("fd00:1::/64")
    assert (four.subnet, six.gateway) == ("10.89.0.0/24", "fd00:1::1")


def test_gateway_and_range_belong_to_the_subnet_that_holds_them() -> None:
    six, four = pools(
        "fd00:1::/64", "10.3.0.0/16", gateways=("10.3.9.9", "fd00:1::9"), ranges=("10.3.7.0/24",)
    )
    assert (four, six.gateway) == (Pool("10.3.0.0/16", "10.3.9.9", "10.3.7.0/24"), "fd00:1::9")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"subnets": ["10.3.0.5/24"]}, "it should be 10.3.0.0/24"),
        ({"subnets": ["10.3.0.0"]}, "expected CIDR notation"),
        ({"subnets": ["10.3.0.0/33"]}, "expected CIDR notation"),
        ({"subnets": ["10.3.0.0/32"]}, "no room"),
        ({"subnets": ["10.3.0.0/31"]}, "no room"),
        ({"subnets": ["fd00::/127"]}, "no room"),
        ({"subnets": ["0.0.0.0/0"]}, "holds addresses that no network can have"),
        ({"subnets": ["127.3.0.0/24"]}, "holds addresses that no network can have"),
        ({"subnets": ["224.3.0.0/24"]}, "holds addresses that no network can have"),
        ({"subnets": ["fe80::/64"]}, "holds addresses that no network can have"),
        ({"subnets": ["10.0.2.0/25"]}, "way out"),
        ({"subnets": ["10.3.0.0/24", "10.3.0.0/25"]}, "already used"),
        ({"subnets": ["10.77.0.0/24"]}, "already used"),
        ({"subnets": ["10.3.0.0/24"], "gateways": ["10.4.0.1"]}, "not in the subnet 10.3.0.0/24"),
        ({"subnets": ["10.3.0.0/24"], "gateways": ["10.3.0.0"]}, "no host's address"),
        ({"subnets": ["10.3.0.0/24"], "gateways": ["10.3.0.255"]}, "no host's address"),
        ({"subnets": ["10.3.0.0/24"], "gateways": ["x"]}, "no IP address"),
        ({"subnets": ["10.3.0.0/24"], "gateways": ["10.3.0.1", "10.3.0.2"]}, "two gateways"),
        ({"subnets": ["10.3.0.0/24"], "ranges": ["10.4.0.0/25"]}, "not in the subnet"),
        ({"subnets": ["10.3.0.0/24"], "ranges": ["10.3.0.0/16"]}, "larger than the subnet"),
        ({"subnets": ["10.3.0.0/24"], "ranges": ["10.3.0.1/25"]}, "expected CIDR notation"),
    ],
)
def test_subnet_that_cannot_be_is_refused(asked: dict[str, list[str]], said: str) -> None:
    with pytest.raises(RlError, match=said):
        pools(
            *asked["subnets"],
            gateways=tuple(asked.get("gateways", ())),
            ranges=tuple(asked.get("ranges", ())),
            taken=("10.76.0.0/15",),
        )


@pytest.mark.parametrize("name", ["", "-a", "a/b", "..", "a" * 129, "a b", "a\n", "é"])
def test_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(RlError, match="invalid network name"):
        check_name(name)


@pytest.mark.parametrize("name", ["host", "none", "bridge", "pasta", "container", "default"])
def test_mode_of_a_network_is_no_name(name: str) -> None:
    with pytest.raises(RlError, match="conflicts with a network mode"):
        check_name(name)


@pytest.mark.parametrize(
    ("options", "ipv6"),
    [
        ({"mtu": "67"}, False), ({"mtu": "65536"}, False), ({"mtu": "x"}, False),
        ({"a": "1"}, False), ({"mtu": "1279"}, True), ({"mtu": ""}, False),
        ({"mtu": "١٥٠٠"}, False),
    ],
)  # fmt: skip
def test_option_that_cannot_be_is_refused(options: dict[str, str], ipv6: bool) -> None:
    with pytest.raises(RlError, match="network option"):
        check_options(options, ipv6=ipv6)


def test_options_and_subnets_reach_what_is_run() -> None:
    made = definition(
        pools=pools(ipv6=True), options={"com.docker.network.driver.mtu": "1400"}, internal=True
    )
    network = made.network
    assert (network.mtu, network.internal) == (1400, True)
    assert network.gateways == ("10.89.0.1", "fd01:203:405::1")


def test_definition_is_what_was_written(tmp_path: Path) -> None:
    store = Definitions(tmp_path)
    made = definition("one", labels={"a": "1"}, options={"mtu": "1400"}, pools=pools(ipv6=True))
    store.add(made)
    store.add(definition("two", id="b" * 64))
    assert store.get("one") == store.get("aaaa") == store.get("a" * 64) == made
    assert [found.name for found in store.list()] == ["one", "two"]
    for name in ("", "three", "../one", "c"):
        with pytest.raises(NetworkNotFound):
            store.get(name)
    store.remove("one")
    assert store.names() == ["two"]


def test_subnets_of_other_networks_and_of_the_host_are_taken(tmp_path: Path) -> None:
    store = Definitions(tmp_path)
    store.add(definition())
    found = taken_subnets(store)
    assert ip_network("10.89.0.0/24") in found
    assert ip_network("0.0.0.0/0") not in found


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"[" * 50000, b"\xff\xfe", b'{"id": "a"}', b"{}" * 1000],
)
def test_damaged_definition_is_an_error_of_one_line_and_of_nobody_else(
    tmp_path: Path, content: bytes
) -> None:
    store = Definitions(tmp_path)
    store.add(definition("fine"))
    (tmp_path / "networks/broken.json").write_bytes(content)
    with pytest.raises(RlError, match=r"network broken is damaged: .*rl network rm broken") as said:
        store.get("broken")
    assert "\n" not in str(said.value)
    assert [found.name for found in store.list()] == ["fine"]
    store.remove("broken")
    assert store.names() == ["fine"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"name": 7},
        {"id": "short"},
        {"pools": []},
        {"pools": [["10.89.0.7/24", "10.89.0.1", ""]]},
        {"pools": [["10.89.0.0/24", "10.3.0.1", ""]]},
        {"pools": [["10.89.0.0/24", "10.89.0.1"]] * 2},
        {"pools": 3},
        {"labels": {"a": 1}},
        {"options": {"mtu": "9" * 9}},
    ],
)
def test_definition_that_says_the_impossible_is_damaged(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    store = Definitions(tmp_path)
    fields = json.loads(json.dumps(definition("it")._asdict())) | change
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks/it.json").write_text(json.dumps(fields))
    with pytest.raises(RlError, match="is damaged"):
        store.get("it")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(("id", "pools", "labels", "name")), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    st.sampled_from(("id", "pools", "labels", "name", "options", "dns", "created")),
)
def test_no_json_makes_reading_a_definition_fail_otherwise(value: Any, field: str) -> None:
    fields = json.loads(json.dumps(definition()._asdict()))
    fields[field] = value
    for data in (value, fields):
        try:
            found = parse(data)
        except (ValueError, KeyError, TypeError, RlError):
            continue
        assert check_name(found.name)


def test_link_and_fifo_are_no_definitions(tmp_path: Path) -> None:
    store = Definitions(tmp_path)
    store.add(definition("fine"))
    os.mkfifo(tmp_path / "networks/fifo.json")
    (tmp_path / "networks/link.json").symlink_to("fine.json")
    for name in ("fifo", "link"):
        with pytest.raises(RlError, match="is damaged"):
            store.get(name)
