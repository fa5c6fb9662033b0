"""The loopback interface of a new network namespace, which starts down."""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

# <linux/sockios.h>, <net/if.h>
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


def bring_up() -> None:
    """Bring ``lo`` up in this process's network namespace; the kernel adds its addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
