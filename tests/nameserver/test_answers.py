"""What the DNS server answers: containers by name, and any bytes without an error."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.nameserver.answers import Forward, answer, fits
from rootless.nameserver.table import Client, Endpoint, Table

INSIDE = Client(("net",), forwarded=False)
OUTSIDE = Client(("net",), forwarded=True)


def table(count: int = 0) -> Table:
    known = Table()
    known.set_network("net", internal=False)
    known.set_network("other", internal=True)
    known.set_endpoint("web", Endpoint("web", "net", ("10.0.0.2", "fd00::2"), ("web", "www"), ()))
    known.set_endpoint("db", Endpoint("db", "net", ("10.0.0.3",), ("db",), ("192.0.2.1",)))
    known.set_endpoint("far", Endpoint("far", "other", ("10.0.1.2",), ("far",), ()))
    known.set_endpoint("db2", Endpoint("db", "other", ("10.0.1.3",), ("db",), ()))
    for number in range(count):
        end = Endpoint(f"c{number}", "net", (f"10.1.{number >> 8}.{number & 255}",), ("many",), ())
        known.set_endpoint(f"c{number}", end)
    return known


def ask(
    name: str, kind: str = "A", client: Client = INSIDE, *, tcp: bool = False, count: int = 0,
    **options: object,
) -> dns.message.Message:  # fmt: skip
    query = dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]
    found = answer(query.to_wire(), table(count), client, tcp=tcp)
    assert isinstance(found, bytes)
    response = dns.message.from_wire(found)
    assert response.id == query.id
    return response


def records(response: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for found in response.answer for record in found)


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("web", "A", ["10.0.0.2"]),
        ("WwW.", "A", ["10.0.0.2"]),
        ("web", "AAAA", ["fd00::2"]),
        ("web", "ANY", ["10.0.0.2", "fd00::2"]),
        ("db", "AAAA", []),
        ("web", "MX", []),
        ("2.0.0.10.in-addr.arpa", "PTR", ["web."]),
        ("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "PTR",
         ["web."]),
    ],
)  # fmt: skip
def test_container_is_known_by_its_names_and_addresses(
    name: str, kind: str, found: list[str]
) -> None:
    response = ask(name, kind)
    assert (records(response), response.rcode()) == (found, dns.rcode.NOERROR)
    assert response.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["nobody", "far", "web.example.org", "9.0.0.10.in-addr.arpa", "."])
def test_name_that_is_nobodys_does_not_exist_where_there_is_no_way_out(name: str) -> None:
    for kind in ("A", "PTR"):
        response = ask(name, kind)
        assert (response.rcode(), response.answer) == (dns.rcode.NXDOMAIN, [])
        assert not response.flags & dns.flags.RA
        query = dns.message.make_query(name, kind).to_wire()
        assert isinstance(answer(query, table(), OUTSIDE, tcp=False), Forward)


def test_client_sees_the_networks_of_its_container_and_a_stranger_the_one_it_asks_on() -> None:
    known = table()
    assert known.client("net", "10.0.0.3") == Client(("net", "other"), True, ("192.0.2.1",))
    assert known.client("other", "10.0.1.3") == Client(("other", "net"), True)
    assert known.client("other", "10.0.1.2") == Client(("other",), False)
    assert known.client("net", "10.9.9.9") == Client(("net",), True)
    # Its address on one network says nothing on another.
    assert known.client("other", "10.0.0.3") == Client(("other",), False)
    assert known.addresses("db", ("net", "other")) == ["10.0.0.3", "10.0.1.3"]
    known.forget_network("other")
    assert known.client("net", "10.0.0.3").networks == ("net",)
    known.forget_endpoint("db")
    assert known.addresses("db", ("net", "other")) is None


def test_answer_that_is_too_long_is_cut_off_by_udp_and_whole_by_tcp() -> None:
    cut = ask("many", count=100)
    assert (bool(cut.flags & dns.flags.TC), cut.answer) == (True, [])
    assert len(records(ask("many", count=100, tcp=True))) == 100
    # 60 take some 1000 bytes: too many without EDNS, not for a client that takes more.
    assert ask("many", count=60).flags & dns.flags.TC
    assert len(records(ask("many", count=60, use_edns=0, payload=4096))) == 60
    assert ask("many", count=100, use_edns=0, payload=65535).flags & dns.flags.TC


def test_what_is_asked_otherwise_is_refused_with_the_right_code() -> None:
    assert ask("web", use_edns=1).rcode() == dns.rcode.BADVERS
    query = dns.message.make_query("web", "A")
    plain = query.to_wire()
    chaos = plain[:-2] + b"\0\3"
    notify = plain[:2] + bytes([plain[2] | 0x20]) + plain[3:]
    twice = plain[:4] + b"\0\2" + plain[6:] + plain[12:]
    answers = plain[:6] + b"\0\1" + plain[8:]
    for wire, code in (
        (chaos, dns.rcode.REFUSED),
        (notify, dns.rcode.NOTIMP),
        (twice, dns.rcode.FORMERR),
        (answers, dns.rcode.FORMERR),
        (plain[:-1], dns.rcode.FORMERR),
        (plain[:12], dns.rcode.FORMERR),
        (plain + b"x", dns.rcode.FORMERR),
    ):
        found = answer(wire, table(), OUTSIDE, tcp=False)
        assert isinstance(found, bytes)
        assert (found[:2], found[3] & 15, bool(found[2] & 0x80)) == (plain[:2], code, True)
    assert ask("web", "AXFR", tcp=True).rcode() == dns.rcode.REFUSED


def test_response_is_never_answered() -> None:
    response = dns.message.make_response(dns.message.make_query("web", "A")).to_wire()
    assert answer(response, table(), OUTSIDE, tcp=False) is None
    assert answer(b"short", table(), OUTSIDE, tcp=False) is None


def _check(wire: bytes) -> None:
    for client in (INSIDE, OUTSIDE):
        for tcp in (False, True):
            found = answer(wire, table(), client, tcp=tcp)
            if isinstance(found, bytes):
                assert found[:2] == wire[:2]
                assert found[2] & 0x80
                assert tcp or len(found) <= 1232
            elif found is not None:
                assert 17 <= found.end <= len(wire)


@given(st.binary(max_size=600))
def test_no_bytes_lead_to_an_error(wire: bytes) -> None:
    _check(wire)


@given(
    st.lists(st.binary(min_size=1, max_size=63), max_size=5),
    st.binary(min_size=4, max_size=4),
    st.binary(max_size=60),
    st.integers(0, 3),
    st.integers(0, 255),
)
def test_no_query_leads_to_an_error(
    labels: list[bytes], kind: bytes, rest: bytes, additional: int, flags: int
) -> None:
    name = b"".join(bytes([len(label)]) + label for label in labels)[:250]
    head = b"\x12\x34" + bytes([flags]) + b"\0\0\1\0\0\0\0\0" + bytes([additional])
    _check(head + name + b"\0" + kind + rest)
    _check(head + name + b"\xc0\x0c" + kind + rest)


@given(st.data())
def test_no_change_of_a_good_query_leads_to_an_error(data: st.DataObject) -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    wire = bytearray(dns.message.make_query("web", "A", use_edns=0, options=[cookie]).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wire) - 1))
        wire[at] = data.draw(st.integers(0, 255))
    _check(bytes(wire[: data.draw(st.integers(0, len(wire)))]))


def test_response_of_another_server_has_to_fit_the_query() -> None:
    query = dns.message.make_query("Example.org", "A")
    found = answer(query.to_wire(), table(), OUTSIDE, tcp=False)
    assert isinstance(found, Forward)
    response = dns.message.make_response(query).to_wire()
    number = response[:2]
    assert fits(found, number, response)
    assert fits(found, number, response.replace(b"Example", b"eXample"))
    assert not fits(found, b"\0\0" if number != b"\0\0" else b"\1\1", response)
    assert not fits(found, number, response.replace(b"Example", b"Another"))
    assert not fits(found, number, query.to_wire())
    assert not fits(found, number, response[:20])
