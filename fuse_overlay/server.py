"""Serves an Overlay to the kernel until it is unmounted or a signal comes.

Called by `command`; whoever mounts for a container uses `connection` itself.
"""

import json
import signal
from collections.abc import Callable, Mapping

from fuse_overlay.abi import Opcode
from fuse_overlay.connection import Connection

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve_until_signalled(connection: Connection) -> bool:
    """Answer requests until unmounted (True), or SIGTERM, SIGINT or SIGHUP (False)."""
    before = {number: signal.signal(number, _stopping(connection)) for number in _SIGNALS}
    try:
        return connection.serve()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopping(connection: Connection) -> Callable[[int, object], None]:
    def stop(_: int, __: object) -> None:
        connection.stop()

    return stop


def write_statistics(path: str, requests: Mapping[int, int]) -> None:
    """Write how many requests of each kind there were, as a JSON object, most first."""
    names = {int(opcode): opcode.name for opcode in Opcode}
    counts = sorted(requests.items(), key=lambda item: -item[1])
    with open(path, "w", encoding="ascii") as file:
        json.dump({names.get(opcode, str(opcode)): count for opcode, count in counts}, file)
