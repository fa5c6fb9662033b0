"""The FUSE mount itself: opening /dev/fuse and the data that mount(2) takes. Imports nothing heavy.

For a process that has CAP_SYS_ADMIN in its user namespace; everyone else mounts through
fusermount3. Called by `command`, and by whoever sets a container's mounts up.
"""

import ctypes
import os

_MS_RDONLY = 1


def open_device() -> int:
    """Open /dev/fuse, in the user namespace that will mount: the kernel insists. Raises OSError."""
    return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)


def mount_data(fd: int) -> str:
    """The data string of mount(2), type `fuse`, for the server that reads `fd`.

    `default_permissions`: the kernel checks modes and ACLs. `allow_other`: for every user of the
    namespace.
    """
    return f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"


def mount(fd: int, target: str, *, read_only: bool = False, source: str = "fuse-overlay") -> None:
    """Mount the file system that is served on `fd` at `target`, perhaps before it is served.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_MS_RDONLY if read_only else 0)
    data = mount_data(fd).encode()
    if libc.mount(source.encode(), os.fsencode(target), b"fuse.fuse-overlay", flags, data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def unmount(target: str) -> None:
    """Detach a mount, at once or when its last user goes. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    detach = 2
    if libc.umount2(os.fsencode(target), detach):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
