"""What we ask of the user's systemd over D-Bus: a scope of its own for each container.

A scope is delegated to us with its processes, and systemd removes it, with all
that we made below, when the last process has gone. Called by ``group``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rootless.errors import RlError

if TYPE_CHECKING:
    from jeepney import Message
    from jeepney.io.blocking import DBusConnection

# All containers of the user are below it.
SLICE: Final = "rl.slice"

# The files of a scope that systemd thinks of as its own, though it is delegated; and their names.
_KEPT: Final = {"cpu.weight": "CPUWeight", "io.weight": "IOWeight", "memory.low": "MemoryLow"}

_TIMEOUT_SECONDS: Final = 30.0


class Systemd:
    """A connection to the manager."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection

    def start_scope(
        self, name: str, description: str, pids: Sequence[int], slice_: str, service: str | None
    ) -> None:
        """Start a delegated scope with these processes in it, and wait until that is done.

        It ends when the ``service`` is stopped that starts it.
        """
        from jeepney import MatchRule, message_bus

        rule = MatchRule(type="signal", interface=f"{_INTERFACE}.Manager", member="JobRemoved")
        self._connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=_TIMEOUT_SECONDS)
        properties: list[tuple[str, tuple[str, Any]]] = [
            ("Description", ("s", description)),
            ("Slice", ("s", slice_)),
            ("Delegate", ("b", True)),
            ("CollectMode", ("s", "inactive-or-failed")),
            ("PIDs", ("au", list(pids))),
        ]
        if service is not None:
            properties.append(("PartOf", ("as", [service])))
        with self._connection.filter(rule) as removed:
            signature = "ssa(sv)a(sa(sv))"
            (job,) = self._call("StartTransientUnit", signature, name, "fail", properties, [])
            while True:
                ended = self._connection.recv_until_filtered(removed, timeout=_TIMEOUT_SECONDS)
                if ended.body[1] == job:
                    break
        if ended.body[3] != "done":
            raise RlError(f"systemd could not start {name}: {ended.body[3]}")

    def attach(self, unit: str, subgroup: str, pid: int) -> None:
        """Move a process that is anywhere into a cgroup below a unit of ours."""
        self._call("AttachProcessesToUnit", "ssau", unit, subgroup, [pid])

    def limit(self, unit: str, properties: Sequence[tuple[str, tuple[str, Any]]]) -> None:
        """Set properties of a unit until the next boot."""
        self._call("SetUnitProperties", "sba(sv)", unit, True, list(properties))

    def keep(self, unit: str, files: Mapping[str, str]) -> None:
        """Tell systemd what a unit's cgroup holds, which it would set anew whenever it reloads."""
        numbers = {_KEPT[file]: int(files[file].split()[-1]) for file in files.keys() & _KEPT}
        if numbers:
            self.limit(unit, [(name, ("t", number)) for name, number in numbers.items()])

    def control_group(self) -> str:
        """Return the manager's own cgroup, which all that it delegates is below."""
        return str(self._property(_manager(), "ControlGroup"))

    def has_file(self, unit: str) -> bool:
        """Tell whether somebody has written a file for a unit."""
        return bool(self._property(self._unit(unit), "FragmentPath"))

    def drop_ins(self, unit: str) -> list[str]:
        """Return the files that change a unit, those of ``limit`` among them."""
        return list(self._property(self._unit(unit), "DropInPaths"))

    def _unit(self, name: str) -> Any:
        from jeepney import DBusAddress

        (path,) = self._call("LoadUnit", "s", name)
        return DBusAddress(path, bus_name=_INTERFACE, interface=f"{_INTERFACE}.Unit")

    def _property(self, target: Any, name: str) -> Any:
        from jeepney import Properties

        return self._send(Properties(target).get(name))[0][1]

    def _call(self, method: str, signature: str, *arguments: object) -> tuple[Any, ...]:
        from jeepney import new_method_call

        return self._send(new_method_call(_manager(), method, signature, arguments))

    def _send(self, message: Message) -> tuple[Any, ...]:
        from jeepney.wrappers import DBusErrorResponse, unwrap_msg

        try:
            reply = self._connection.send_and_get_reply(message, timeout=_TIMEOUT_SECONDS)
            body: tuple[Any, ...] = unwrap_msg(reply)
        except DBusErrorResponse as error:
            said = error.data[0] if error.data else error.name
            raise RlError(f"systemd --user refuses: {said}") from None
        return body


_INTERFACE: Final = "org.freedesktop.systemd1"


def _manager() -> Any:
    from jeepney import DBusAddress

    return DBusAddress(
        "/org/freedesktop/systemd1", bus_name=_INTERFACE, interface=f"{_INTERFACE}.Manager"
    )


@contextmanager
def connected(socket: str) -> Iterator[Systemd]:
    """Connect to the bus at this path; RlError where nobody answers there as should be."""
    from jeepney.io.blocking import open_dbus_connection
    from jeepney.wrappers import DBusErrorResponse

    try:
        with open_dbus_connection(f"unix:path={_escaped(socket)}") as connection:
            yield Systemd(connection)
    except (OSError, EOFError, ValueError, DBusErrorResponse) as error:
        raise RlError(f"cannot talk to systemd --user at {socket}: {error}") from None


def _escaped(path: str) -> str:
    """Return a path as a D-Bus address wants it."""
    plain = set("-_/.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    return "".join(c if c in plain else "".join(f"%{b:02x}" for b in c.encode()) for c in path)
