"""The DNS server's process: real clients, other servers, and those who mean it harm."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from rootless.nameserver import forwarding
from rootless.nameserver.table import Table
from tests.nameserver.support import (
    BACK,
    BOTH,
    DB,
    FRONT,
    STRANGER,
    WEB,
    Running,
    Upstream,
    running,
    says,
    silent,
)
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def server() -> Iterator[Running]:
    """Return the server with nobody to ask."""
    with running() as one:
        yield one


def dig(server: Running, *arguments: str, source: str = WEB) -> list[str]:
    done = subprocess.run(
        ["dig", "+short", "+tries=5", f"@{FRONT}", "-p", str(server.ports[FRONT]), "-b", source,
         *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(done.stdout.split())


def test_dig_finds_containers(server: Running) -> None:
    assert dig(server, "web") == dig(server, "WWW.") == dig(server, "+tcp", "www") == [WEB]
    assert dig(server, "web", "AAAA") == ["fd00::2"]
    assert dig(server, "shared") == dig(server, "+noedns", "shared") == [WEB, DB]
    assert dig(server, "-x", WEB) == ["web."]
    assert dig(server, "db", "AAAA") == []


def test_all_who_share_an_alias_get_their_turn_to_be_first(server: Running) -> None:
    def first() -> str:
        return str(server.ask("shared").answer[0][0])

    found = first()
    wait_until(lambda: first() != found)


def test_networks_do_not_know_each_others_names_but_who_is_on_both_knows_all(
    server: Running,
) -> None:
    assert server.addresses("deep") == ["SERVFAIL"]
    assert server.addresses("web", server=BACK, source="127.0.2.2") == ["NXDOMAIN"]
    assert server.addresses("deep", source=BOTH) == ["127.0.2.2"]
    assert server.addresses("web", server=BACK, source="127.0.2.4") == [WEB]
    assert server.addresses("both", source=BOTH) == [BOTH, "127.0.2.4"]


def test_who_has_left_is_not_found_any_more(server: Running) -> None:
    server.tell(endpoint="deep back", gone=True)
    assert server.addresses("deep", server=BACK, source="127.0.2.4") == ["SERVFAIL"]
    server.container("deep", "back", "127.0.2.7")
    assert server.addresses("deep", server=BACK, source="127.0.2.7") == ["127.0.2.7"]
    server.tell(network="back", gone=True)
    wait_until(lambda: _refused(BACK, server.ports[BACK]))
    assert server.addresses("web") == [WEB]


def _refused(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) != 0


def test_process_ends_with_its_channel() -> None:
    with running() as server:
        assert server.addresses("web") == [WEB]
        server.channel.close()
        assert server.child.wait() == 0


def test_other_names_are_asked_of_the_hosts_servers() -> None:
    with Upstream(says("192.0.2.1", 2)) as up, running([up.address], up.port) as server:
        assert server.addresses("example.org") == ["192.0.2.1", "192.0.2.2"]
        assert server.ask("example.org").flags & dns.flags.RA
        assert up.asked_by_tcp == 0
        assert server.addresses("example.org", tcp=True) == ["192.0.2.1", "192.0.2.2"]
        assert up.asked_by_tcp == 1
        count = len(up.asked)
        assert server.addresses("web") == [WEB]
        assert server.addresses("web", "MX") == []
        # Of an internal network nothing leaves.
        assert server.addresses("example.org", server=BACK, source="127.0.2.2") == ["NXDOMAIN"]
        assert len(up.asked) == count
        # Everyone is asked under another number, which nobody can foretell.
        query = dns.message.make_query("example.org", "A")
        query.id = 7
        for _ in range(2):
            answer = dns.query.udp(query, FRONT, PATIENCE, server.ports[FRONT], WEB)
            assert answer.id == 7
        assert len({asked[:2] for asked in up.asked[-2:]} | {b"\0\7"}) > 1


def test_container_with_servers_of_its_own_has_those_asked() -> None:
    with (
        Upstream(says("192.0.2.1")) as up,
        Upstream(says("192.0.2.9"), "127.0.0.54", up.port) as other,
        running([up.address], up.port) as server,
    ):
        server.container("db", "front", DB, dns=[other.address])
        assert server.addresses("example.org", source=DB) == ["192.0.2.9"]
        assert server.addresses("example.org", source=WEB) == ["192.0.2.1"]


def test_answer_that_is_too_long_for_udp_is_cut_off_and_fetched_by_tcp() -> None:
    with Upstream(says("192.0.2.1", 100)) as up, running([up.address], up.port) as server:
        cut = server.ask("example.org")
        assert (bool(cut.flags & dns.flags.TC), cut.answer) == (True, [])
        assert len(server.addresses("example.org", tcp=True)) == 100
        assert len(dig(server, "example.org")) == 100


def test_silent_server_is_passed_over_and_if_all_are_the_client_learns_it() -> None:
    with (
        Upstream(silent) as first,
        Upstream(says("192.0.2.1"), "127.0.0.54", first.port) as second,
        running([first.address, second.address], first.port, _SECONDS=0.5) as server,
    ):
        # The second has no longer than the first to answer.
        wait_until(lambda: server.addresses("example.org") == ["192.0.2.1"])
        assert first.asked
        server.container("db", "front", DB, dns=[first.address])
        for tcp in (False, True):
            assert server.addresses("example.org", source=DB, tcp=tcp) == ["SERVFAIL"]
        assert server.addresses("web") == [WEB]


def test_forged_answers_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = says("192.0.2.1")
    forged = says("203.0.113.6")

    def respond(query: bytes) -> list[bytes]:
        (lie,) = forged(query)
        other = dns.message.make_query("other.org", "A").to_wire()
        (about_another,) = forged(query[:2] + other[2:])
        number = bytes([lie[0] ^ 1, lie[1]])
        return [b"", b"\0", number + lie[2:], about_another, query, *honest(query)]

    with Upstream(respond) as up, running([up.address], up.port) as server:
        assert server.addresses("example.org") == ["192.0.2.1"]
    # Who knows neither number nor question is believed where nobody looks at them.
    with monkeypatch.context() as patch:
        patch.setattr(forwarding, "fits", lambda forward, number, response: len(response) > 12)
        with Upstream(respond) as up, running([up.address], up.port) as server:
            assert server.addresses("example.org") == ["203.0.113.6"]


def test_questions_that_wait_for_a_silent_server_are_bounded_for_each_client() -> None:
    with Upstream(silent) as up, running([up.address], up.port) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((WEB, 0))
            client.settimeout(PATIENCE)
            client.connect((FRONT, server.ports[FRONT]))
            for number in range(40):
                query = dns.message.make_query(f"n{number}.example.org", "A").to_wire()
                client.send(query)
                # One at a time: the queue of what was not looked at yet is short, too.
                if number < 32:
                    wait_until(lambda asked=number: len(up.asked) > asked)  # type: ignore[misc]
                else:
                    answer = client.recv(1000)
                    assert (answer[:2], answer[3] & 15) == (query[:2], dns.rcode.SERVFAIL)
            assert len(up.asked) == 32
            # Others are not held up.
            assert server.addresses("web", source=DB) == [WEB]
        server.child.kill()


def test_clients_have_their_turns_and_what_waits_of_each_is_bounded(server: Running) -> None:
    assert server.addresses("web") == [WEB]
    address = (FRONT, server.ports[FRONT])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as modest,
    ):
        for client, source in ((greedy, DB), (modest, WEB)):
            client.bind((source, 0))
            client.connect(address)
            client.settimeout(PATIENCE)
        # All of it is there when the server looks, the greedy one's first.
        os.kill(server.child.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: _is_stopped(server.child.pid))
            for _ in range(100):
                greedy.send(_numbered(1))
            modest.send(_numbered(1))
        finally:
            os.kill(server.child.pid, signal.SIGCONT)
        assert modest.recv(1000)
        # What was asked last is answered last.
        greedy.send(_numbered(2))
        answered = 0
        while greedy.recv(1000)[:2] != b"\0\2":
            answered += 1
        assert 1 <= answered <= 16


def _numbered(number: int) -> bytes:
    return dns.message.make_query("web", "A", id=number).to_wire()


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


_FLOOD = 300_000


def test_flood_of_one_client_does_not_keep_others_from_being_answered(server: Running) -> None:
    query = dns.message.make_query("web", "A").to_wire()
    before = _memory(server.child.pid)
    flooding = os.fork()
    if flooding == 0:
        try:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.bind((DB, 0))
            client.connect((FRONT, server.ports[FRONT]))
            # Without an end nobody could say how long it is just bad luck that what another sends
            # always meets a full buffer.
            for _ in range(_FLOOD):
                client.send(query)
        finally:
            os._exit(1)
    try:
        for _ in range(30):
            # As a resolver does: a datagram that was lost is sent again.
            assert _with_retries(server) == [WEB]
    finally:
        os.kill(flooding, 9)
        os.waitpid(flooding, 0)
    assert _memory(server.child.pid) - before < 50_000


def _memory(pid: int) -> int:
    """Return a process's own memory in KiB: what it has of ours by the fork is in it, too."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def _with_retries(server: Running) -> list[str]:
    query = dns.message.make_query("web", "A")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = dns.query.udp(query, FRONT, 0.1, server.ports[FRONT], WEB)
        except dns.exception.Timeout:
            assert time.monotonic() < deadline
        else:
            return [record.to_text() for found in answer.answer for record in found]


def connect(server: Running, source: str = WEB) -> socket.socket:
    address = (FRONT, server.ports[FRONT])
    return socket.create_connection(address, PATIENCE, source_address=(source, 0))


def framed(name: str) -> bytes:
    query = dns.message.make_query(name, "A").to_wire()
    return len(query).to_bytes(2, "big") + query


@pytest.mark.parametrize("defended", [True, False])
def test_who_is_not_on_the_network_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, defended: bool
) -> None:
    if not defended:
        monkeypatch.setattr(Table, "knows", lambda *_: True)
    with Upstream(silent) as up, running([up.address], up.port) as server:
        for source, name in ((STRANGER, "strange.org"), (WEB, "known.org")):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((source, 0))
                query = dns.message.make_query(name, "A").to_wire()
                client.sendto(query, (FRONT, server.ports[FRONT]))
        wait_until(lambda: any(b"known" in asked for asked in up.asked))
        assert any(b"strange" in asked for asked in up.asked) is not defended
        with connect(server, STRANGER) as client, suppress(ConnectionError):
            client.sendall(framed("web"))
            assert (client.recv(2) == b"") is defended
        server.child.kill()


@pytest.mark.parametrize("defended", [True, False])
def test_all_of_a_network_together_leave_others_something(defended: bool) -> None:
    bounds = {"_MOST": 3, "_MOST_OF_NETWORK": 2 if defended else 3}
    with Upstream(silent) as up, running([up.address], up.port, **bounds) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((WEB, 0))
            for number in range(3):
                query = dns.message.make_query(f"n{number}.org", "A").to_wire()
                client.sendto(query, (FRONT, server.ports[FRONT]))
        wait_until(lambda: len(up.asked) == bounds["_MOST_OF_NETWORK"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.2.4", 0))
            client.settimeout(PATIENCE)
            query = dns.message.make_query("other.org", "A").to_wire()
            client.sendto(query, (BACK, server.ports[BACK]))
            if defended:
                wait_until(lambda: any(b"other" in asked for asked in up.asked))
            else:
                assert client.recv(1000)[3] & 15 == dns.rcode.SERVFAIL
        server.child.kill()


def test_connection_carries_several_questions_in_pieces(server: Running) -> None:
    with connect(server) as client, client.makefile("rb") as answers:
        for byte in framed("web") + framed("db"):
            client.sendall(bytes([byte]))
        for expected in (WEB, DB):
            response = answers.read(int.from_bytes(answers.read(2), "big"))
            (found,) = dns.message.from_wire(response).answer
            assert found[0].to_text() == expected


def test_connection_without_questions_is_closed() -> None:
    with running(_IDLE_SECONDS=0.2) as server:
        for begun in (b"", b"\0", framed("web")[:-1], b"\xff\xff" + bytes(1000)):
            with connect(server) as client:
                with suppress(ConnectionError):
                    client.sendall(begun)
                assert _closed(client)
        assert server.addresses("web") == [WEB]


def test_connections_of_one_client_are_bounded_and_others_have_theirs(server: Running) -> None:
    mine = [connect(server) for _ in range(8)]
    try:
        for one in mine:
            one.sendall(framed("web"))
            assert one.recv(2) != b""
        with connect(server) as more:
            assert _closed(more)
        assert server.addresses("web", source=DB, tcp=True) == [WEB]
    finally:
        for one in mine:
            one.close()

    def free_again() -> bool:
        with connect(server) as one:
            try:
                one.sendall(framed("web"))
                return one.recv(2) != b""
            except ConnectionError:
                return False

    wait_until(free_again)


def _closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_client_that_reads_no_answers_holds_up_nobody(server: Running) -> None:
    with connect(server) as client:
        client.setblocking(False)
        try:
            while True:
                client.send(framed("shared") * 100)
        except BlockingIOError:
            pass
        assert server.addresses("web", source=DB, tcp=True) == [WEB]
        assert server.addresses("web") == [WEB]


@pytest.mark.parametrize("seed", range(3))
def test_garbage_stops_nothing(server: Running, seed: int) -> None:
    import random

    made = random.Random(seed)
    good = dns.message.make_query("web", "A").to_wire()
    for number in range(300):
        garbage = made.randbytes(made.randrange(1, 1400))
        if number % 2:
            garbage = good[: made.randrange(len(good))] + garbage[:40]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((DB, 0))
            client.sendto(garbage, (FRONT, server.ports[FRONT]))
        if number % 20 == 0:
            # It may be closed already: one client has only so many.
            with suppress(ConnectionError), connect(server, DB) as stream:
                stream.sendall(garbage)
    assert _with_retries(server) == [WEB]
    assert server.addresses("web", tcp=True) == [WEB]


def test_server_sleeps_while_nobody_asks(server: Running) -> None:
    with Upstream(silent):
        server.addresses("web")
        server.addresses("web", tcp=True)

    def woken() -> str:
        status = Path(f"/proc/{server.child.pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith("voluntary"))

    def at_rest() -> bool:
        before = woken()
        time.sleep(1)
        return woken() == before

    # The end of the last connection may still be on its way.
    wait_until(at_rest)
