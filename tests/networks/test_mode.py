"""What --network and -p mean, as values."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from rootless.errors import RlError
from rootless.networks import programs
from rootless.networks.etc import hosts, resolv_conf
from rootless.networks.mode import Mode, choose
from rootless.networks.ports import Port, parse_exposed, parse_publish, publish_all
from rootless.networks.request import NetworkRequest, check_mac, parse_add_host

PASTA = Mode("pasta")


@pytest.mark.parametrize(
    "text",
    ["none", "host", "pasta", "slirp4netns", "pasta:-T,5432,--map-gw", "pasta:--mtu,1500",
     "slirp4netns:mtu=1500,allow_host_loopback=true", "container:web"],
)  # fmt: skip
def test_a_mode_reads_as_it_is_written(text: str) -> None:
    assert str(Mode.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid network ''"),
        ("nowhere", "invalid network 'nowhere'"),
        ("none:x", "invalid network 'none:x'"),
        ("container:", "invalid network 'container:'"),
        ("pasta:--pcap,/tmp/x", "'--pcap'"),
        ("pasta:--netns,/proc/1/ns/net", "'--netns'"),
        ("slirp4netns:api_socket=/x", "'api_socket=/x'"),
        ("slirp4netns:enable_ipv6=maybe", "'maybe' is no truth value"),
        ("slirp4netns:port_handler=rootlesskit", "only slirp4netns itself forwards ports"),
    ],
)
def test_a_mode_that_there_is_not_is_refused_and_says_why(text: str, why: str) -> None:
    with pytest.raises(RlError) as raised:
        choose(text)
    assert why in str(raised.value)


@pytest.mark.parametrize("text", [None, "bridge", "default", "private"])
def test_dockers_names_for_the_default_mean_ours(text: str | None) -> None:
    assert choose(text) == (PASTA, "")


@pytest.mark.parametrize(
    ("missing", "expected"), [("pasta", "slirp4netns"), ("pasta slirp4netns", "host")]
)
def test_default_is_the_best_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, missing: str, expected: str
) -> None:
    from rootless.networks import mode

    def find(program: str) -> str | None:
        return None if program in missing.split() else f"/usr/bin/{program}"

    monkeypatch.setattr(mode, "find", find)
    chosen, warning = choose(None)
    assert chosen.name == expected
    assert ("passt" in warning) == (expected == "host")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(80)]),
        ("8080:80", [Port(80, host=8080)]),
        ("8080:80/udp", [Port(80, "udp", host=8080)]),
        ("53:53/UDP", [Port(53, "udp", host=53)]),
        ("127.0.0.1:8080:80", [Port(80, ip="127.0.0.1", host=8080)]),
        ("127.0.0.1::80", [Port(80, ip="127.0.0.1")]),
        ("[::1]:8080:80", [Port(80, ip="::1", host=8080)]),
        ("[::]:80", [Port(80, ip="::")]),
        ("8000-8001:80-81", [Port(80, host=8000), Port(81, host=8001)]),
        ("8000-8009:80", [Port(80, host=8000, last=8009)]),
        ("80-81", [Port(80), Port(81)]),
    ],
)
def test_ports_are_read_as_docker_reads_them(text: str, ports: list[Port]) -> None:
    assert parse_publish(text) == ports


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "65536", "80/sctp", "8080:", ":80:", "1.2.3:80:80", "::1:80:80", "[::1]80",
     "8000-8002:80-81", "81-80", "-1", "80:80:80:80", "٣",
     "9" * 5000, "1-" + "9" * 5000],
)  # fmt: skip
def test_ports_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid port"):
        parse_publish(text)
    with pytest.raises(RlError, match=r"^.{15,300}$"):
        parse_exposed([text or "x"])


def test_ranges_that_an_image_exposes_again_and_again_are_looked_at_once() -> None:
    names = [f"{first}-65535/{name}" for first in range(1, 100) for name in ("tcp", "UDP")]
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        ports = parse_exposed(names)
    finally:
        sys.setprofile(None)
    assert len(ports) == 2 * 65535
    assert calls["call"] < 3 * 65535
    assert parse_exposed(["1-3", "2-5", "4", "9-10/udp"]) == {
        *((number, "tcp") for number in range(1, 6)), (9, "udp"), (10, "udp"),
    }  # fmt: skip


def test_all_that_is_exposed_is_published_once() -> None:
    exposed = parse_exposed(["80", "53/udp", "80-81"])
    published = [Port(80, host=8080)]
    assert publish_all(exposed, published) == [*published, Port(53, "udp"), Port(81)]


def test_pasta_forwards_only_what_was_asked_for_and_hides_the_hosts_loopback() -> None:
    arguments = " ".join(programs.pasta(programs.Wanted(PASTA), "/u", "/n"))
    for closed in ("--no-map-gw", "-T none", "-U none", "-t none", "-u none"):
        assert closed in arguments
    opened = Mode.parse("pasta:--map-gw,-T,5432")
    arguments = " ".join(programs.pasta(programs.Wanted(opened, [Port(80, host=8080)]), "/u", "/n"))
    assert "map-gw" not in arguments
    assert "-T none" not in arguments
    for kept in ("-T 5432", "-U none", "-t 8080:80", "-u none"):
        assert kept in arguments


@pytest.mark.parametrize(
    ("mode", "families", "ips"),
    [
        ("pasta", (4, 6), ["0.0.0.0", "::"]),
        ("pasta", (4,), ["0.0.0.0"]),
        ("pasta:-4", (4, 6), ["0.0.0.0"]),
        ("pasta:--ipv6-only", (4, 6), ["::"]),
        ("pasta", (), [""]),
        ("slirp4netns", (4, 6), [""]),
    ],
)
def test_port_without_address_is_open_on_all_of_each_version(
    mode: str, families: tuple[int, ...], ips: list[str]
) -> None:
    anywhere, one = Port(80, host=8080), Port(80, ip="127.0.0.1", host=8080)
    wanted = programs.Wanted(Mode.parse(mode), [anywhere, one], families)
    assert programs.listening(wanted) == [*(Port(80, ip=ip, host=8080) for ip in ips), one]


def test_loopback_name_servers_are_replaced_by_what_forwards_to_them() -> None:
    text = "# made by hand\nsearch example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n"
    assert resolv_conf(PASTA, NetworkRequest(), text) == (
        "search example.org\nnameserver 10.0.2.3\nnameserver 192.0.2.53\n"
    )
    assert "127.0.0.53" in resolv_conf(Mode("host"), NetworkRequest(), text)


def test_what_was_asked_for_replaces_the_hosts_resolver() -> None:
    text = "domain example.org\nnameserver 192.0.2.1\noptions edns0\n"
    wanted = NetworkRequest(dns=("192.0.2.9",), dns_search=("a", "b"), dns_options=("ndots:3",))
    assert resolv_conf(PASTA, wanted, text) == (
        "search a b\nnameserver 192.0.2.9\noptions ndots:3\n"
    )
    none = resolv_conf(PASTA, NetworkRequest(dns_search=(".",)), text)
    assert none == "nameserver 192.0.2.1\noptions edns0\n"


def test_hosts_name_the_container_the_host_and_what_was_asked_for() -> None:
    wanted = NetworkRequest(add_hosts=("db:192.0.2.7",))
    lines = hosts(PASTA, "box", wanted).splitlines()
    assert {"192.0.2.7\tdb", "10.0.2.100\tbox"} <= set(lines)
    assert any(line.endswith("host.containers.internal host.docker.internal") for line in lines)
    # An own entry for one of our names comes first, so it counts.
    mine = hosts(PASTA, "box", NetworkRequest(add_hosts=("host.docker.internal:192.0.2.7",)))
    assert mine.index("192.0.2.7") < mine.rindex("host.docker.internal")


@pytest.mark.parametrize(
    ("text", "entry"),
    [("db:192.0.2.7", "db:192.0.2.7"), ("db=192.0.2.7", "db:192.0.2.7"),
     ("db:2001:db8::1", "db:2001:db8::1"), ("db:[2001:db8::1]", "db:2001:db8::1"),
     ("me:host-gateway", "me:host-gateway")],
)  # fmt: skip
def test_added_hosts_are_read_as_docker_reads_them(text: str, entry: str) -> None:
    assert parse_add_host(text) == entry


@pytest.mark.parametrize("text", ["db", ":192.0.2.7", "db:nowhere", "d b:192.0.2.7"])
def test_added_hosts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(RlError):
        parse_add_host(text)


def test_mac_addresses_are_those_of_one_interface() -> None:
    assert check_mac("92-D0-C6-0A-29-33") == "92:d0:c6:0a:29:33"
    for wrong in ("92:d0:c6:0a:29", "93:d0:c6:0a:29:33", "x"):
        with pytest.raises(RlError):
            check_mac(wrong)
