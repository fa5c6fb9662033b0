"""Volumes: directories that outlive the containers that write to them.

Owns ROOT/volumes/NAME: `_data`, all that containers see of it, and volume.json that says what it
is; beside them lies what `filling` and `server` need. A volume appears by rename and goes by
rename. Called by create and by the command line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from rootless import events
from rootless.errors import RlError, VolumeNotFound
from rootless.files import replace_file
from rootless.naming import valid_name
from rootless.quota import Disk, describe
from rootless.trees import remove_tree
from rootless.values import as_dict
from rootless.volumes import filling

# Docker's label for a volume that nobody named.
ANONYMOUS: Final = "com.docker.volume.anonymous"
# What containers see, and what the server of a limited volume works in: one that has it is limited.
DATA: Final = "_data"
WORK: Final = "work"
_METADATA: Final = "volume.json"


class Volume(NamedTuple):
    """One volume; ``path`` is what containers see of it, ``limit`` how much that may hold."""

    name: str
    path: Path
    created: str
    labels: Mapping[str, str] = {}
    limit: Disk = Disk()

    @property
    def anonymous(self) -> bool:
        """Whether it was made for a container that named none."""
        return ANONYMOUS in self.labels


def is_limited(directory: str) -> bool:
    """Tell whether the volume in this directory has a limit, whatever is known of it."""
    return os.path.isdir(f"{directory}/{WORK}")


def limit_of(directory: str) -> Disk:
    """Return the limit of the volume in this directory, which has one; RlError if it is lost."""
    try:
        with open(f"{directory}/{_METADATA}", "rb") as file:
            limit = _limit(json.load(file)["limit"])
    except (OSError, ValueError, KeyError, TypeError):
        limit = Disk()
    if not limit.exists:
        raise RlError(f"its limit is lost with its {_METADATA}")
    return limit


def _limit(fields: Mapping[str, Any]) -> Disk:
    """Return what is recorded; TypeError if it is damaged."""
    limit = Disk(**fields)
    if any(type(value) not in (int, type(None)) for value in limit):
        raise TypeError(f"{limit} is no limit")
    return limit


class VolumeStore:
    """The volumes of one user."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / "volumes"

    @staticmethod
    def new_name() -> str:
        """Return a name for an anonymous volume, as Docker forms it."""
        return os.urandom(32).hex()

    def create(
        self, name: str, labels: Mapping[str, str] | None = None, limit: Disk | None = None
    ) -> bool:
        """Make the volume ``name`` unless it is there, and tell; the caller keeps sweeps away.

        RlError if it is there with another ``limit`` than the one that is asked for.
        """
        path = self.path(name)
        limit = limit or Disk()
        if path.is_dir():
            self._check_limit(name, limit)
            return False
        draft = self._aside(name)
        data = draft / path.name
        data.mkdir(parents=True)
        # Whatever the user's umask: other users of a container are to reach it.
        data.chmod(filling.MODE)
        if limit.exists:
            (draft / WORK).mkdir(mode=0o700)
        metadata = {
            "created": _written(time.time()),
            "labels": dict(labels or {}),
            "limit": as_dict(limit),
        }
        replace_file(draft / _METADATA, json.dumps(metadata).encode())
        self._directory.mkdir(exist_ok=True)
        try:
            draft.rename(path.parent)
        except OSError as error:
            # Somebody else was first.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove_tree(draft)
            self._check_limit(name, limit)
            return False
        events.record(self._root, "volume", "create", name, {"driver": "local"})
        return True

    def path(self, name: str) -> Path:
        """Return the directory that is mounted into containers."""
        if not valid_name(name):
            raise RlError(f"{name!r} is no volume name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        return self._directory / name / DATA

    def get(self, name: str) -> Volume:
        """Return the volume of this name; VolumeNotFound if there is none."""
        path = self.path(name) if valid_name(name) else None
        if path is None or not path.is_dir():
            raise VolumeNotFound(f"no such volume: {name}")
        try:
            metadata = json.loads((path.parent / _METADATA).read_bytes())
            created, labels = str(metadata["created"]), dict(metadata["labels"])
            limit = _limit(metadata.get("limit", {}))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # What it says is lost; what the volume holds is not.
            created, labels, limit = _written(path.parent.stat().st_mtime), {}, Disk()
        return Volume(name, path, created, labels, limit)

    def list(self) -> list[Volume]:
        """Return all volumes by name."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            with contextlib.suppress(VolumeNotFound):
                found.append(self.get(name))
        return found

    def withdraw(self, name: str) -> Path:
        """Let a volume disappear, and return where what it holds waits to be removed."""
        doomed = self._aside(name)
        doomed.parent.mkdir(exist_ok=True)
        try:
            self.path(name).parent.rename(doomed)
        except FileNotFoundError:
            raise VolumeNotFound(f"no such volume: {name}") from None
        events.record(self._root, "volume", "destroy", name, {"driver": "local"})
        return doomed

    def _check_limit(self, name: str, wanted: Disk) -> None:
        has = self.get(name).limit
        if wanted.exists and describe(wanted) != describe(has):
            shown = " ".join(f"-o {key}={value}" for key, value in describe(has).items())
            raise RlError(
                f"volume {name} is there already, with {shown or 'no limit'}, which cannot be "
                "changed (choose another name, or remove it first)"
            )

    def _aside(self, name: str) -> Path:
        return self._root / "tmp" / f"volume-{name}-{os.urandom(4).hex()}"


def _written(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
