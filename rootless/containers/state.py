"""What changes in a container's life, in its state.json, and what is true of that now.

Owns the file's form. What it says of a process is believed only while that very process lives.
When it is written is ``store``'s.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

from rootless.files import replace_file
from rootless.kernel import proc
from rootless.networks.ports import Port
from rootless.values import as_dict

# Docker's code for a container whose end nobody could record.
LOST = 255


# How long a living supervisor gets to record the end of its container.
_RECORDING_TRIES = 20


_RECORDING_SECONDS = 0.01


class Process(NamedTuple):
    """A process of this boot, named so that no later process can be taken for it."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the name of a living process."""
        return cls(pid, proc.start_time(pid) or 0, proc.boot_id())

    def alive(self) -> bool:
        """Tell whether that very process still runs."""
        return proc.start_time(self.pid) == self.start and proc.boot_id() == self.boot


_Status = Literal["created", "running", "restarting", "exited"]
_Record = TypeVar("_Record", Process, Port)


class State(NamedTuple):
    """What changes in a container's life; times are RFC 3339 in UTC, "" when not yet."""

    name: str
    created_at: str
    status: _Status = "created"
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    error: str = ""
    init: Process | None = None
    supervisor: Process | None = None
    restarts: int = 0
    disk: dict[str, int] | None = None
    """What `rl update` has made of its disk limit."""
    stopped: bool = False
    """Whether its last run ended because a person asked for that."""
    ports: tuple[Port, ...] = ()
    oom_killed: bool = False
    cgroup: str = ""
    limits: dict[str, Any] | None = None
    """What `rl update` has changed them to."""
    restart: str = ""
    """What `rl update` has made of its restart policy."""
    networks: Sequence[Mapping[str, Any]] | None = None
    """Its user networks with the addresses it has or had there, by ``connections``; None before."""


# What JSON has of each field. Whoever reads all containers is not to fail for one that is damaged.
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("name", "created_at", "status", "started_at", "finished_at"), (str,)),
    **dict.fromkeys(("error", "cgroup", "restart"), (str,)),
    **dict.fromkeys(("exit_code", "restarts"), (int,)),
    **dict.fromkeys(("stopped", "oom_killed"), (bool,)),
    **dict.fromkeys(("init", "supervisor", "disk", "limits"), (dict, type(None))),
    "ports": (list,),
    "networks": (list, type(None)),
}


def now() -> str:
    """Return the time as state.json holds it."""
    return _written(time.time_ns())


def _written(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06}Z"


def write_state(path: Path, state: State, *, durable: bool = True) -> None:
    """Write state.json of the container directory ``path``."""
    replace_file(path / "state.json", json.dumps(as_dict(state)).encode(), durable=durable)


def read_state(path: Path) -> State:
    """Return a container's state, corrected by what is really alive."""
    state = parse_state((path / "state.json").read_bytes())
    for _ in range(_RECORDING_TRIES):
        if state.status == "exited" or (state.init is not None and state.init.alive()):
            return state
        if state.supervisor is None or (state.init is None and state.supervisor.alive()):
            # Not started, or being started right now.
            return state
        if not state.supervisor.alive():
            break
        # Its end is being recorded right now.
        time.sleep(_RECORDING_SECONDS)
        state = parse_state((path / "state.json").read_bytes())
    return state._replace(
        status="exited",
        exit_code=LOST,
        error=state.error or "its supervisor did not record how it ended",
        finished_at=_server_ended(path, state) or state.finished_at,
        init=None,
    )


def _server_ended(path: Path, state: State) -> str:
    """Return when the overlay server saw the last run end, "" if it could not say so either."""
    with contextlib.suppress(FileNotFoundError):
        ended = _written((path / "overlay.log").stat().st_mtime_ns)
        if ended > state.started_at:
            return ended
    return ""


def parse_state(data: bytes) -> State:
    """Read a state.json; fields of another version of ours are passed over.

    ValueError, TypeError, KeyError or AttributeError for what we have never written.
    """
    values = {key: value for key, value in json.loads(data).items() if key in State._fields}
    for key, value in values.items():
        if type(value) not in _TYPES[key]:
            raise TypeError(f"its {key} is {json.dumps(value)}")
    if values.get("status", "created") not in get_args(_Status):
        raise ValueError(f"its status is {values['status']!r}")
    for key in ("init", "supervisor"):
        if (fields := values.get(key)) is not None:
            values[key] = _typed(Process(**fields), int, int, str)
    ports = (Port(**fields) for fields in values.get("ports", ()))
    values["ports"] = tuple(_typed(port, int, str, str, int, int) for port in ports)
    if values.get("networks") is not None:
        from rootless.containers.connection import Connection

        # Its neighbours look at them, who are not to fail by what is damaged here.
        for fields in values["networks"]:
            Connection.read(fields)
    return State(**values)


def _typed(record: _Record, *types: type) -> _Record:
    if tuple(map(type, record)) != types:
        raise TypeError(f"{record} is none")
    return record
