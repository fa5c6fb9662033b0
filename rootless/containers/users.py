"""The user a container runs as, read from the image's own passwd and group files.

Pure: takes the text of the files and decides. The rules are Docker's for
``--user NAME|UID[:GROUP|GID]``; see passwd(5) and group(5). Called by init,
inside the container's root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from rootless.errors import RlError

_LARGEST_ID: Final = 2**32 - 2


class User(NamedTuple):
    """Numeric identity inside the container."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(wanted: str, passwd: str, group: str, more: Iterable[str] = ()) -> User:
    """Return the identity that ``wanted`` ("", "uid", "name:group", …) means in this image.

    ``more`` are groups to be in besides, by name or number.
    """
    name, _, group_name = wanted.partition(":")
    name = name or "0"
    entry = _find_user(name, passwd)
    if entry is None and not (name.isascii() and name.isdecimal()):
        raise RlError(f"unable to find user {name}: no matching entries in the image's passwd file")
    if entry is None:
        uid, gid, home, login = _given_id(name, "user"), 0, "/", ""
    else:
        uid, gid, home, login = entry
    added = {_find_group(name, group) for name in more}
    if group_name:
        gid = _find_group(group_name, group)
        return User(uid, gid, tuple(sorted(added - {gid})), home or "/")
    members = added | {
        number for _, number, names in _groups(group) if login and login in names and number != gid
    }
    return User(uid, gid, tuple(sorted(members)), home or "/")


def _find_user(wanted: str, passwd: str) -> tuple[int, int, str, str] | None:
    by_number = None
    for name, _, uid_text, gid_text, _, home, *_ in _records(passwd, 7):
        uid, gid = _id(uid_text), _id(gid_text)
        if uid is None or gid is None:
            continue
        if name == wanted:
            return uid, gid, home, name
        if uid_text == wanted and by_number is None:
            by_number = uid, gid, home, name
    return by_number


def _find_group(wanted: str, group: str) -> int:
    for name, number, _ in _groups(group):
        if name == wanted:
            return number
    if wanted.isascii() and wanted.isdecimal():
        return _given_id(wanted, "group")
    raise RlError(f"unable to find group {wanted}: no matching entries in the image's group file")


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for name, _, gid_text, members, *_ in _records(group, 4):
        gid = _id(gid_text)
        if gid is not None:
            yield name, gid, members.split(",")


def _records(text: str, width: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.strip().split(":")
        if fields[0] and not fields[0].startswith("#") and len(fields) >= width:
            yield fields


def _id(text: str) -> int | None:
    """Return a uid or gid, or None for what is none: a broken line must not break the others."""
    if text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _LARGEST_ID:
        return int(text)
    return None


def _given_id(text: str, kind: str) -> int:
    number = _id(text)
    if number is None:
        raise RlError(f"{kind} ID {text} is too large (at most {_LARGEST_ID})")
    return number
