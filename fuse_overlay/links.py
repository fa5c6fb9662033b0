"""What keeps the names of a lower file with several names one file after it was copied up.

Owns WORK/links: for each such file one more link to its upper copy, named
`LAYER-INO-CTIME.DIFFERENCE` in hexadecimal after the lower file; the difference is what its link
count in the overlay exceeds that of the upper copy by. A lower name that has no upper entry finds
the copy here, also after a remount. While there is no copy, `LAYER-INO-CTIME.lostN`, a whiteout,
says how many of the names were removed. Called by `tree`, `copyup` and `changes`.
"""

import os

from fuse_overlay.workdir import WorkDirectory, make_directory

_LOST = b"lost"


def link_key(layer: int, status: os.stat_result) -> bytes:
    """Identify a lower file, also after a remount of the same layers.

    By its change time as well, so that a file which later has its number is not taken for it.
    """
    return b"%x-%x-%x" % (layer, status.st_ino, status.st_ctime_ns)


def layer_and_inode(key: bytes) -> tuple[int, int]:
    """The layer and the inode number of the lower file that a key identifies."""
    layer, inode, _ = key.split(b"-")
    return int(layer, 16), int(inode, 16)


class Links:
    """The links of one work directory, read once and then kept in memory."""

    def __init__(self, work_root: int) -> None:
        self.fd = make_directory(work_root, b"links")
        self._differences: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._lost: dict[bytes, int] = {}
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            with os.scandir(listing) as entries:
                for entry in entries:
                    key, _, difference = os.fsencode(entry.name).partition(b".")
                    try:
                        layer_and_inode(key)
                        if difference.startswith(_LOST):
                            self._lost[key] = int(difference.removeprefix(_LOST), 16)
                            continue
                        self._differences[key] = int(difference, 16)
                    except ValueError:
                        continue  # none of ours
                    self._keys[entry.inode()] = key
        finally:
            os.close(listing)
        for key in self._lost.keys() & self._differences.keys():
            self.forget_lost(key)  # a server was killed before it had

    def __contains__(self, key: bytes) -> bool:
        return key in self._differences

    def key_of(self, upper_inode: int) -> bytes | None:
        """The key of an upper file, if it is such a copy."""
        return self._keys.get(upper_inode)

    def lost(self, key: bytes) -> int:
        """How many names of a lower file without a copy were removed."""
        return self._lost.get(key, 0)

    def lose(self, key: bytes, work: WorkDirectory) -> None:
        """Count one more of them, if there is room for that."""
        before = self._lost.get(key, 0)
        try:
            if before:
                old, new = _lost_name(key, before), _lost_name(key, before + 1)
                os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            else:
                work.whiteout(self.fd, _lost_name(key, 1))
        except OSError:
            return  # the name is gone, that is no failure; the count is too high, as after a kill
        self._lost[key] = before + 1

    def forget_lost(self, key: bytes) -> None:
        """There is a copy now, or no name any more."""
        count = self._lost.pop(key, 0)
        if count:
            os.unlink(_lost_name(key, count), dir_fd=self.fd)

    def unreached(self) -> list[bytes]:
        """The keys of the copies that have no other name than the one here."""
        return [
            key
            for key in self._differences
            if os.stat(self.name(key), dir_fd=self.fd, follow_symlinks=False).st_nlink == 1
        ]

    def name(self, key: bytes) -> bytes:
        return _name(key, self._differences[key])

    def difference(self, key: bytes) -> int:
        return self._differences[key]

    def add(self, work: int, temporary: bytes, key: bytes, difference: int) -> None:
        """Move a finished copy from the work directory here."""
        inode = os.stat(temporary, dir_fd=work, follow_symlinks=False).st_ino
        os.rename(temporary, _name(key, difference), src_dir_fd=work, dst_dir_fd=self.fd)
        self._differences[key] = difference
        self._keys[inode] = key

    def adjust(self, key: bytes, change: int) -> None:
        before = self._differences[key]
        os.rename(
            _name(key, before), _name(key, before + change), src_dir_fd=self.fd, dst_dir_fd=self.fd
        )
        self._differences[key] = before + change

    def remove(self, key: bytes) -> None:
        name = self.name(key)
        inode = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_ino
        os.unlink(name, dir_fd=self.fd)
        del self._differences[key]
        del self._keys[inode]

    def close(self) -> None:
        os.close(self.fd)


def _lost_name(key: bytes, count: int) -> bytes:
    return b"%s.%s%x" % (key, _LOST, count)


def _name(key: bytes, difference: int) -> bytes:
    return b"%s.%x" % (key, difference)
