"""Who owns a file, where that is not simply what the file system below says.

For backing directories whose files all belong to one user, or to other ids than they are to be
shown under; the options and their meaning are fuse-overlayfs's. Called by `tree` (what is shown)
and by what changes the upper directory (what is stored).
"""

import os
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

ATTRIBUTE: Final = "user.containers.override_stat"
PRIVILEGED_ATTRIBUTE: Final = "security.fuseoverlayfs.override_stat"
"""Hold `UID:GID:MODE`, the mode in octal; see xattr_permissions in fuse-overlayfs(1)."""

_OVERFLOW: Final = 65534

Ranges = Sequence[tuple[int, int, int]]
"""(first id as stored, first id as shown, how many)."""


class Ownership(NamedTuple):
    """The rules of one mount.

    `uids` and `gids` translate ids; an id outside all ranges is shown, or stored, as the overflow
    id. `squash_uid` and `squash_gid` are shown for everyone, and then it is no error that an owner
    cannot be stored. With `attribute`, owner and mode of regular files and directories are read
    from and written to it. Others cannot have it (user.*), and have only what the file system
    stores.
    """

    uids: Ranges = ()
    gids: Ranges = ()
    squash_uid: int | None = None
    squash_gid: int | None = None
    attribute: str | None = None

    def shown(self, status: os.stat_result, path: bytes, *, follow: bool) -> tuple[int, int, int]:
        """Mode, uid and gid to show for a file of this status at this path."""
        mode, uid, gid = status.st_mode, status.st_uid, status.st_gid
        if self.attribute is not None and self.in_attribute(mode):
            try:
                text = os.getxattr(path, self.attribute, follow_symlinks=follow).split(b":")
                stored = int(text[0]), int(text[1]), int(text[2], 8) & 0o7777
                uid, gid, mode = stored[0], stored[1], stat.S_IFMT(mode) | stored[2]
            except (OSError, ValueError, IndexError):
                pass  # there is none, or none that means anything
        uid, gid = _translate(uid, self.uids), _translate(gid, self.gids)
        return (
            mode,
            uid if self.squash_uid is None else self.squash_uid,
            gid if self.squash_gid is None else self.squash_gid,
        )

    def stored(self, uid: int | None, gid: int | None) -> tuple[int | None, int | None]:
        """The ids to store for these, which are shown; None stays None."""
        return (
            None if uid is None else _translate(uid, _inverse(self.uids)),
            None if gid is None else _translate(gid, _inverse(self.gids)),
        )

    def store(
        self, path: str | bytes | int, mode: int, uid: int, gid: int, *, follow: bool
    ) -> None:
        """Make a new file, whose mode is `mode`, belong to a user. Raises OSError."""
        uid, gid = _translate(uid, _inverse(self.uids)), _translate(gid, _inverse(self.gids))
        if self.attribute is not None and self.in_attribute(mode):
            value = b"%d:%d:%o" % (uid, gid, stat.S_IMODE(mode))
            os.setxattr(path, self.attribute, value, follow_symlinks=follow)
            return
        try:
            os.chown(path, uid, gid, follow_symlinks=follow)
        except PermissionError:
            if not self.lenient:
                raise
        if not stat.S_ISLNK(mode):
            os.chmod(path, stat.S_IMODE(mode))

    def in_attribute(self, mode: int) -> bool:
        """Whether owner and mode of a file of such a mode are in the attribute."""
        return self.attribute is not None and (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    @property
    def squashes(self) -> bool:
        """Whether it is no error that an owner cannot be stored."""
        return self.squash_uid is not None or self.squash_gid is not None

    @property
    def lenient(self) -> bool:
        """Whether it is none where nobody has asked for that owner: in making and copying up."""
        return self.squashes or self.attribute is not None

    def backing_mode(self, mode: int) -> int:
        """The mode to give the file itself: one that lets us in, if the shown one is elsewhere."""
        if not self.in_attribute(mode):
            return stat.S_IMODE(mode)
        return mode & 0o777 | (0o700 if stat.S_ISDIR(mode) else 0o600)


def _translate(number: int, ranges: Ranges) -> int:
    for start, target, count in ranges:
        if start <= number < start + count:
            return target + number - start
    return _OVERFLOW if ranges else number


def _inverse(ranges: Ranges) -> Ranges:
    return [(shown, stored, count) for stored, shown, count in ranges]


def parse_ranges(text: str) -> list[tuple[int, int, int]]:
    """Understand `STORED:SHOWN:COUNT[:STORED:SHOWN:COUNT...]`. Raises ValueError."""
    numbers = [int(part) for part in text.split(":")]
    if len(numbers) % 3 or min(numbers) < 0:
        raise ValueError(text)
    return [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers), 3)]
