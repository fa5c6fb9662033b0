"""What the differential test draws from: layers, names and arguments of operations.

Small sets, so that operations meet. Used by `test_differential`.
"""

from __future__ import annotations

import os

from hypothesis import strategies as st

from tests.fuse_overlay.generated import (
    LONG_AGO,
    Directory,
    Fifo,
    Link,
    Object,
    Regular,
    Repeated,
    Symlink,
    Whiteout,
)
from tests.fuse_overlay.operations import ACLS, CAPABILITY

_NAMES = ("abcd", "abc", "ab")
_PATHS = [[*_NAMES[0]]]
for _names in _NAMES[1:]:
    _PATHS.append([f"{parent}/{name}" for parent in _PATHS[-1] for name in _names])

PATHS = st.one_of(*(st.sampled_from(paths) for paths in _PATHS))
USERS = st.sampled_from([0, 0, 0, 77])
SLOTS = st.integers(0, 2)
OFFSETS = st.sampled_from([0, 1, 5, 100, 4095, 4096, 5000, 70_000, 1_100_000])
DATA = st.sampled_from(
    [b"x", b"hello", b"\0" * 10, Repeated(b"page", 1024), Repeated(b"long ", 20_000)]
)
FILE_MODES = st.sampled_from([0o644, 0o600, 0o666, 0o4755, 0o2755, 0o6777, 0o2666, 0o000])
DIRECTORY_MODES = st.sampled_from([0o755, 0o777, 0o700, 0o2775, 0o1777, 0o000])
TARGETS = st.sampled_from(["a", "b", "a/b", "c/a", "nowhere"])
ATTRIBUTES = st.sampled_from(
    [
        ("user.one", b"1"),
        ("user.one", b""),
        ("user.two", b"two" * 50),
        ("security.capability", CAPABILITY),
        ("system.posix_acl_access", ACLS[0]),
        ("system.posix_acl_access", ACLS[1]),
        ("system.posix_acl_default", ACLS[0]),
        ("system.posix_acl_default", ACLS[1]),
    ]
)
TIMES = st.sampled_from([None, LONG_AGO + 1, LONG_AGO + 10**9])
OPEN_FLAGS = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_RDWR,
        os.O_WRONLY | os.O_APPEND,
        os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_RDWR | os.O_TRUNC,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_RDWR | os.O_TMPFILE,
        os.O_RDONLY | os.O_DIRECTORY,
    ]
)

_regular = st.builds(
    Regular,
    data=st.sampled_from(
        [
            (),
            ((0, b"lower"),),
            ((0, b"start"), (70_000, b"end")),
            ((3, b"x" * 9000),),
            ((0, b"large"), (1_200_000, b"end")),  # copied by a thread
        ]
    ),
    size=st.sampled_from([0, 0, 200_000]),
    mode=FILE_MODES,
    owner=st.sampled_from([0, 77, 5]),
    attributes=st.sampled_from(
        [
            (),
            (("user.one", b"lower"),),
            (("security.capability", CAPABILITY),),
            (("system.posix_acl_access", ACLS[0]),),
        ]
    ),
)
_directory = st.builds(
    Directory,
    mode=DIRECTORY_MODES,
    owner=st.sampled_from([0, 77]),
    opaque=st.sampled_from([False, False, False, True]),
    attributes=st.sampled_from(
        [(), (), (("user.one", b"lower"),), (("system.posix_acl_default", ACLS[0]),)]
    ),
)
_object: st.SearchStrategy[Object] = st.one_of(
    _regular,
    _directory,
    _directory,
    st.builds(Symlink, TARGETS, owner=st.sampled_from([0, 77])),
    st.builds(Fifo, FILE_MODES, owner=st.sampled_from([0, 77])),
    st.builds(Whiteout),
    st.builds(Link, PATHS),
)
LAYERS = st.lists(st.dictionaries(PATHS, _object, max_size=12), min_size=2, max_size=3)
