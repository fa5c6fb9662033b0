"""What a DNS query is answered, from bytes to bytes: from the table, or others are to be asked.

Pure. Every query is hostile: whatever the bytes, there is an answer, or None for what gets none.
Called by ``listening``.
"""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address
from typing import Final, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from rootless.nameserver.table import Client, Table

HEADER: Final = struct.Struct(">HHHHHH")
# RFC 1035 without EDNS; with it what passes every path unfragmented.
_SMALLEST: Final = 512
_LARGEST_UDP: Final = 1232
LARGEST: Final = 65535
# Short: an address is another container's soon after its own has stopped.
_TTL: Final = 5
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_RD: Final = 0x0100
# OPT, and a signature of the client's.
_MOST_ADDITIONAL: Final = 2
_TRANSFERS: Final = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
_ADDRESSES: Final = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}


class Forward(NamedTuple):
    """A query that is for others, who get it as it came; ``end`` is where its question ends."""

    query: bytes
    end: int
    message: dns.message.Message
    limit: int


def answer(query: bytes, table: Table, client: Client, *, tcp: bool) -> bytes | Forward | None:
    """Return the answer; a Forward if it is not ours to give; None for what is no query."""
    if len(query) < HEADER.size:
        return None
    _, flags, questions, answers, authorities, additional = HEADER.unpack_from(query)
    if flags & _QR:
        return None
    if flags & _OPCODE:
        return refusal(query, dns.rcode.NOTIMP)
    if (questions, answers, authorities) != (1, 0, 0) or additional > _MOST_ADDITIONAL:
        return refusal(query, dns.rcode.FORMERR)
    try:
        message = dns.message.from_wire(query)
        return _answer(query, message, table, client, tcp=tcp)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        return refusal(query, dns.rcode.FORMERR)


def refusal(query: bytes, code: dns.rcode.Rcode) -> bytes:
    """Return an answer that says no more than a code; the query has a whole header."""
    number, flags, *_ = HEADER.unpack_from(query)
    return HEADER.pack(number, _QR | flags & (_OPCODE | _RD) | code, 0, 0, 0, 0)


def _answer(
    query: bytes, message: dns.message.Message, table: Table, client: Client, *, tcp: bool
) -> bytes | Forward:
    limit = LARGEST if tcp else _limit(message)
    response = dns.message.make_response(
        message, recursion_available=client.forwarded, our_payload=_LARGEST_UDP
    )
    if message.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
        return wire(response, limit)
    (question,) = message.question
    if question.rdclass != dns.rdataclass.IN or question.rdtype in _TRANSFERS:
        response.set_rcode(dns.rcode.REFUSED)
        return wire(response, limit)
    found = _own(question, table, client)
    if found is None and client.forwarded:
        end = HEADER.size + len(question.name.to_digestable()) + 4
        return Forward(query, end, message, limit)
    if found is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    else:
        response.flags |= dns.flags.AA
        response.answer = found
    return wire(response, limit)


def _own(question: dns.rrset.RRset, table: Table, client: Client) -> list[dns.rrset.RRset] | None:
    """Return the records of a name that is a container's, which may be none; None for others."""
    if question.rdtype == dns.rdatatype.PTR:
        try:
            address = dns.reversename.to_address(question.name)
        except (dns.exception.DNSException, ValueError):
            return None
        names = table.names(str(ip_address(address)), client.networks)
        if not names:
            return None
        targets = [f"{name}." for name in names]
        return [dns.rrset.from_text(question.name, _TTL, "IN", "PTR", *targets)]
    name = question.name.to_text(omit_final_dot=True).lower()
    addresses = table.addresses(name, client.networks)
    if addresses is None:
        return None
    # All get their turn to be the first, which is the one that clients take.
    random.shuffle(addresses)
    found = []
    for kind, version in _ADDRESSES.items():
        of_kind = [text for text in addresses if (":" in text) == (version == 6)]
        if question.rdtype in (kind, dns.rdatatype.ANY) and of_kind:
            found.append(dns.rrset.from_text(question.name, _TTL, "IN", kind, *of_kind))
    return found


def _limit(message: dns.message.Message) -> int:
    if message.edns < 0:
        return _SMALLEST
    return max(_SMALLEST, min(message.payload, _LARGEST_UDP))


def wire(response: dns.message.Message, limit: int) -> bytes:
    """Return a response as bytes, cut off and marked so where it is longer than ``limit``."""
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer, response.authority, response.additional = [], [], []
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def forwarded(forward: Forward, response: bytes | None) -> bytes:
    """Return what a client gets, of what the others said; None is that nobody did."""
    if response is None:
        return refusal(forward.query, dns.rcode.SERVFAIL)
    if len(response) <= forward.limit:
        return forward.query[:2] + response[2:]
    cut = dns.message.make_response(forward.message, recursion_available=True)
    cut.flags |= dns.flags.TC
    return cut.to_wire()


def fits(forward: Forward, number: bytes, response: bytes) -> bool:
    """Tell whether this is the response to a query that was sent on under another ``number``."""
    return (
        len(response) >= forward.end
        and response[:2] == number
        and bool(response[2] & _QR >> 8)
        and response[4:6] == b"\0\1"
        and response[HEADER.size : forward.end].lower()
        == forward.query[HEADER.size : forward.end].lower()
    )
