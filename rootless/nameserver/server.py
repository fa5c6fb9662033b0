"""The DNS server's process: told by the holder who is on which network, it answers until that ends.

It stays in the host's network namespace, from where it asks other servers; the sockets that it is
asked by come from the holder, made in the networks'. It sleeps while nobody asks. Called by the
holder.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence
from typing import Any

from rootless.channel import Channel
from rootless.nameserver.forwarding import Forwarder, host_servers
from rootless.nameserver.listening import Listening
from rootless.nameserver.table import Endpoint, Table


def serve(channel: Channel, servers: Sequence[str] | None = None) -> None:
    """Answer until the channel is closed; ``servers`` are asked what no container is called."""
    asyncio.run(_serve(channel, host_servers() if servers is None else servers))


async def _serve(channel: Channel, servers: Sequence[str]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)

    def hear() -> None:
        while not ended.is_set() and poll.poll(0):
            message, fds = channel.receive()
            if message is None:
                loop.remove_reader(channel.fileno())
                ended.set()
            else:
                _learn(message, fds, table, listening)

    table = Table()
    listening = Listening(table, Forwarder(servers), hear)
    loop.add_reader(channel.fileno(), hear)
    await ended.wait()


def _learn(message: dict[str, Any], fds: Sequence[int], table: Table, listening: Listening) -> None:
    gone = message.get("gone", False)
    if "endpoint" in message:
        if gone:
            table.forget_endpoint(message["endpoint"])
        else:
            table.set_endpoint(message["endpoint"], Endpoint.read(message))
    elif gone:
        listening.remove(message["network"])
        table.forget_network(message["network"])
    else:
        table.set_network(message["network"], internal=message["internal"])
        for fd in fds:
            listening.add(message["network"], socket.socket(fileno=fd))
