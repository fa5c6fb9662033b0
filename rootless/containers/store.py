"""The containers of one user on disk, and the truth about each.

Owns ROOT/containers/ID: config.json (OCI runtime-spec, never changed) and
state.json (written aside and renamed), with upper, work, merged, hosts,
hostname and resolv.conf beside them. A directory appears by rename and goes by
rename. What state.json says, and what of it is believed, is ``state``'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rootless.containers.annotation import Extra, Spec, read_extra
from rootless.containers.state import Process, State, parse_state, read_state, write_state
from rootless.errors import ContainerDamaged, ContainerNotFound, RlError
from rootless.trees import remove_tree

HEALTH = "health.json"


class Container(NamedTuple):
    """One container as it was when it was read."""

    id: str
    path: Path
    config: Spec
    state: State
    health: Mapping[str, Any] | None = None
    """Docker's State.Health, of the last run; None where nothing is checked."""

    @property
    def name(self) -> str:
        """The name that people use."""
        return self.state.name

    @property
    def created(self) -> str:
        """When it was made, RFC 3339."""
        return self.state.created_at

    @property
    def extra(self) -> Extra:
        """What it was made from: image, request, volumes, labels."""
        return read_extra(self.config)

    @property
    def active(self) -> bool:
        """Whether it runs or is just being started."""
        starting = self.state.status == "created" and self.state.supervisor is not None
        return starting or self.state.status in ("running", "restarting")

    def not_running(self) -> RlError:
        """Return the error of whoever wants something of a container that does not run now."""
        if self.state.status == "restarting":
            return RlError(f"container {self.name} is restarting, wait until it is running")
        return RlError(f"container {self.name} is not running")

    @property
    def paused(self) -> bool:
        """Whether all its processes are frozen."""
        cgroup = self.state.cgroup
        if self.state.status != "running" or not cgroup:
            return False
        from rootless.cgroups import tree

        return tree.frozen(cgroup)

    @property
    def restart(self) -> str:
        """When it is started again, as --restart takes it."""
        return self.state.restart or str(self.extra.request.get("restart", "no"))

    @property
    def shared(self) -> set[str]:
        """The types of the namespaces that are the host's."""
        own = {space["type"] for space in self.config["linux"]["namespaces"]}
        return {"pid", "ipc", "uts", "network"} - own - self.extra.joined.keys()

    @property
    def owns_processes(self) -> bool:
        """Whether the end of its PID 1 is that of all its processes, in a namespace of its own."""
        return any(space["type"] == "pid" for space in self.config["linux"]["namespaces"])

    @property
    def auto_remove(self) -> bool:
        """Whether it is to go when it ends (--rm)."""
        return bool(self.extra.request["auto_remove"])


class ContainerStore:
    """All containers under one state root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._directory = root / "containers"

    def list(self) -> list[Container]:
        """Return all containers, the newest first; damaged ones are left out."""
        found = []
        for name in _names(self._directory):
            with contextlib.suppress(ContainerDamaged):
                if container := self._read(name):
                    found.append(container)
        return sorted(found, key=lambda container: container.created, reverse=True)

    def names(self) -> dict[str, str]:
        """Return the ID of each container by its name, and read no more than that takes."""
        found = {}
        for container_id in _names(self._directory):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                state = json.loads((self.path(container_id) / "state.json").read_bytes())
                found[str(state["name"])] = container_id
        return found

    def get(self, name: str) -> Container:
        """Return the container called ``name``, or whose ID is or uniquely starts with it.

        Raises ContainerNotFound; ContainerDamaged for one known by its ID only.
        """
        known = _names(self._directory)
        owner = self.names().get(name, name)
        with contextlib.suppress(ContainerDamaged):
            if owner in known and (container := self._read(owner)):
                return container
        matches = [one for one in known if name and one.startswith(name)]
        if len(matches) > 1:
            raise RlError(f"{name} is ambiguous: the IDs of {len(matches)} containers start so")
        found = self._read(matches[0]) if matches else None
        if found is None:
            raise ContainerNotFound(f"no such container: {name}")
        return found

    def by_id(self, container_id: str) -> Container:
        """Return the container with this whole ID."""
        found = self._read(container_id)
        if found is None:
            raise ContainerNotFound(f"no such container: {container_id[:12]}")
        return found

    def recorded(self, container: Container) -> Container:
        """Return a container as its state was last recorded, whoever lives."""
        state = parse_state((container.path / "state.json").read_bytes())
        return container._replace(state=state)

    def used_layers(self) -> set[str]:
        """Return the diff IDs of all layers that containers need.

        Raises ContainerDamaged rather than leave one out.
        """
        used: set[str] = set()
        for name in _names(self._directory):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                used.update(read_extra(self._read_config(name)).layers)
        return used

    def used_volumes(self) -> dict[str, set[str]]:
        """Return for each volume the names of the containers that have it.

        Raises ContainerDamaged rather than leave one out.
        """
        users: dict[str, set[str]] = {}
        for name in _names(self._directory):
            if container := self._read(name):
                for volume in container.extra.volumes.values():
                    users.setdefault(volume, set()).add(container.name)
        return users

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock under which names are given and containers appear or go."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.root / "containers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def path(self, container_id: str) -> Path:
        """Return where the container of this ID lies (or will lie)."""
        return self._directory / container_id

    def add(self, draft: Path, container_id: str) -> Container:
        """Let a finished directory appear as a container; the caller holds the lock."""
        draft.rename(self.path(container_id))
        container = self._read(container_id)
        assert container is not None
        return container

    def update(self, container: Container, **changes: object) -> Container:
        """Record changes of the state, on top of those that others made.

        Safe against a kill at any instant. ContainerNotFound if it was removed.
        """
        with self.locked():
            return self.change(container, **changes)

    def claim(self, container: Container, supervisor: Process) -> Container:
        """Let ``supervisor`` start a container; RlError if another one already has it."""
        with self.locked():
            if self.by_id(container.id).active:
                raise RlError(f"container {container.name} is already running")
            fresh: dict[str, object] = {"status": "created", "supervisor": supervisor, "init": None}
            fresh |= {"error": "", "restarts": 0, "stopped": False, "oom_killed": False}
            return self.change(container, **fresh)

    def rename(self, container: Container, name: str) -> None:
        """Give a container another name; the caller has checked its form."""
        with self.locked():
            if owner := self.names().get(name):
                raise name_in_use(name, owner)
            self.change(container, name=name)

    def change(self, container: Container, **changes: Any) -> Container:
        """Record changes, as ``update`` does; the caller holds the lock."""
        with unless_removed(container):
            state = parse_state((container.path / "state.json").read_bytes())._replace(**changes)
            # One that is going to be removed at once has nothing that should outlast a crash.
            removed = state.status == "exited" and container.auto_remove
            write_state(container.path, state, durable=not removed)
        return container._replace(state=state)

    def remove(self, container_id: str) -> None:
        """Remove a container that does not run.

        PermissionError for files of subordinate ids, unless this process is root of the
        user's namespace; it may be called again then. Its anonymous volumes stay: they are
        the caller's decision.
        """
        doomed = self.root / "tmp" / f"container-{container_id}"
        doomed.parent.mkdir(mode=0o700, exist_ok=True)
        # It may be gone half by now: what belongs to other ids takes a second attempt.
        with contextlib.suppress(FileNotFoundError):
            self.path(container_id).rename(doomed)
        remove_tree(doomed)

    def _read_config(self, container_id: str) -> Spec:
        try:
            config: Spec = json.loads((self.path(container_id) / "config.json").read_bytes())
            read_extra(config)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContainerDamaged(container_id, error) from None
        return config

    def _read(self, container_id: str) -> Container | None:
        """Return a container, or None for one that is being removed at this moment."""
        path = self._directory / container_id
        try:
            config = self._read_config(container_id)
            state = read_state(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContainerDamaged(container_id, error) from None
        return Container(container_id, path, config, state, read_health(path))


@contextmanager
def unless_removed(container: Container) -> Iterator[None]:
    """Let what fails in this block be that there is no such container, where it was removed."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (RlError, OSError):
        if not container.path.exists():
            raise ContainerNotFound(f"no such container: {container.name}") from None
        raise


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def name_in_use(name: str, owner: str) -> RlError:
    """Say that a name is taken by the container with the ID ``owner``."""
    return RlError(
        f'the container name "{name}" is already in use by container {owner[:12]} '
        "(remove that container, or choose another name)"
    )


def read_health(path: Path) -> dict[str, Any] | None:
    """Return what health.json of the container directory ``path`` says, if there is one."""
    try:
        health: dict[str, Any] = json.loads((path / HEALTH).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return health
