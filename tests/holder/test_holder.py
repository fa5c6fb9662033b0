"""rl-holder: when there is one, what it holds for whom, and what remains when anybody is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.errors import RlError
from rootless.holder import lock
from rootless.holder.client import Holder
from rootless.kernel import polling, process
from tests.support.waiting import PATIENCE, wait_until


def holders(root: Path) -> list[int]:
    """Return the processes that have this store's log of the holder as their stderr."""
    log = root / "holder.log"
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name == "rl-holder" and os.readlink(f"/proc/{pid}/fd/2").startswith(str(log)):
                found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    wait_until(lambda: not holders(tmp_path))


def test_it_runs_from_the_first_client_to_the_last(root: Path) -> None:
    first = Holder(root)
    (pid,) = holders(root)
    second = Holder(root)
    first.close()
    second.check()
    assert second.ask("holder")[1]
    assert holders(root) == [pid]
    second.close()
    wait_until(lambda: not holders(root))
    assert not (root / "holder.sock").exists()


def test_clients_are_given_one_user_namespace_with_the_ids_of_the_user(root: Path) -> None:
    first, second = Holder(root), Holder(root)
    spaces = {os.fstat(client.outer.userns).st_ino for client in (first, second)}
    assert len(spaces) == 1
    assert spaces != {os.stat("/proc/self/ns/user").st_ino}
    (pid,) = holders(root)
    lines = Path(f"/proc/{pid}/uid_map").read_text().splitlines()
    assert [tuple(map(int, line.split())) for line in lines] == [
        (entry.inside, entry.outside, entry.size) for entry in first.outer.maps.uids
    ]
    first.close()
    second.close()


def test_two_stores_have_two(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        root.mkdir()
    clients = [Holder(root) for root in roots]
    assert len({os.fstat(client.outer.userns).st_ino for client in clients}) == 2
    for client in clients:
        client.close()
    wait_until(lambda: not any(map(holders, roots)))


def _client(root: Path, ready: int, end: int) -> int:
    client = Holder(root)
    os.write(ready, b"r")
    os.read(end, 1)
    client.check()
    return 0


def test_many_that_start_at_once_have_one(root: Path) -> None:
    ready, is_ready = os.pipe()
    end, ends = os.pipe()
    clients = [
        process.fork(lambda: _client(root, is_ready, end), keep=(is_ready, end)) for _ in range(12)
    ]
    told = b""
    while len(told) < len(clients):
        told += os.read(ready, 100)
    assert len(holders(root)) == 1
    os.close(ends)
    assert [client.wait() for client in clients] == [0] * len(clients)
    for fd in (ready, is_ready, end):
        os.close(fd)


def test_comings_and_goings_never_meet_one_that_goes(root: Path) -> None:
    def come_and_go() -> int:
        for _ in range(15):
            Holder(root).close()
        return 0

    children = [process.fork(come_and_go) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]


def test_client_that_is_killed_is_noticed(root: Path) -> None:
    ready, is_ready = os.pipe()
    end, ends = os.pipe()
    client = process.fork(lambda: _client(root, is_ready, end), keep=(is_ready, end))
    os.read(ready, 1)
    assert len(holders(root)) == 1
    client.kill()
    client.wait()
    wait_until(lambda: not holders(root))
    for fd in (ready, is_ready, end, ends):
        os.close(fd)


def test_its_own_death_is_noticed_and_another_one_started(root: Path) -> None:
    client = Holder(root)
    (pid,) = holders(root)
    os.kill(pid, signal.SIGKILL)
    assert polling.wait(client.watched(), PATIENCE)
    with pytest.raises(RlError, match="rl-holder ended"):
        client.check()
    with pytest.raises(RlError, match="rl-holder ended"):
        client.ask("holder")
    later = Holder(root)
    assert holders(root) != [pid]
    client.close()
    later.close()


def test_it_is_in_no_session_and_no_process_group_of_its_starter(root: Path) -> None:
    client = Holder(root)
    (pid,) = holders(root)
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGTERM)
    assert client.ask("holder")[1]
    client.close()


@pytest.mark.parametrize(
    "message", [b"", b"{", b"[]", b'{"service": 7}', b'{"service": "x"}', b"\xff"]
)
def test_nonsense_harms_nobody(root: Path, message: bytes) -> None:
    client = Holder(root)
    hostile = lock.connect(str(root))
    assert hostile is not None
    hostile.send(message)
    hostile.settimeout(PATIENCE)
    hostile.recv(1000)
    hostile.close()
    assert client.ask("holder")[1]
    with pytest.raises(RlError, match="has no 'x'"):
        client.ask("x")
    client.close()


def test_client_that_reads_no_answer_holds_nobody_up(root: Path) -> None:
    client = Holder(root)
    deaf = lock.connect(str(root))
    assert deaf is not None
    deaf.setblocking(False)
    try:
        while True:
            deaf.send(b'{"service": "x"}')
    except OSError:
        pass
    assert client.ask("holder")[1]
    deaf.close()
    client.close()
