"""The FUSE mount itself: opening /dev/fuse and the data that mount(2) takes. Imports nothing heavy.

mount(2) is for a process that has CAP_SYS_ADMIN in its user namespace; for everyone else there is
fusermount3, which is setuid. Called by `command`, and by whoever sets a container's mounts up.
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


def fusermount(target: str, *, read_only: bool = False) -> int:
    """Mount at `target` through fusermount3, for this user alone. Returns the /dev/fuse descriptor.

    Raises OSError with fusermount3's own words.
    """
    import socket
    import subprocess

    options = "default_permissions,fsname=fuse-overlay,subtype=fuse-overlay"
    options += ",ro" if read_only else ""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            done = subprocess.run(
                ["fusermount3", "-o", options, "--", target],
                env=os.environ | {"_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
                check=False,
                text=True,
                errors="replace",
            )
        if done.returncode:
            raise OSError(None, done.stderr.strip() or f"fusermount3: {done.returncode}")
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(fds[0], False)
    return fds[0]


def fuserunmount(target: str) -> None:
    """Detach what `fusermount` mounted."""
    import subprocess

    subprocess.run(["fusermount3", "-u", "-z", "-q", "--", target], check=False)
