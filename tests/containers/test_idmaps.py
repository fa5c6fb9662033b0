"""--userns as a value: its syntax, and the maps that are made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.containers.idmaps import Mode, choose, owners
from rootless.errors import RlError
from rootless.kernel.userns import IdMap, Maps, build_map

USER = Maps(build_map(1000, [(100000, 65536), (300000, 10)]), build_map(100, [(200000, 65536)]))


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", Mode("default")),
        ("host", Mode("default")),
        ("nomap", Mode("nomap")),
        ("single", Mode("single")),
        ("keep-id", Mode("keep-id")),
        ("keep-id:uid=5,gid=7", Mode("keep-id", 5, 7)),
        ("auto", Mode("auto")),
        ("auto:size=2000", Mode("auto", size=2000)),
    ],
)
def test_mode_is_read_as_podman_reads_it(text: str, mode: Mode) -> None:
    assert Mode.parse(text) == mode


@pytest.mark.parametrize(
    "text",
    ["x", "host:x", "nomap:uid=1", "keep-id:uid=x", "keep-id:uid=-1", "keep-id:size=1",
     "keep-id:uid", "auto:size=0", "auto:uid=1", "keep-id:uid=4294967295", "ns:/proc/1/ns/user"],
)  # fmt: skip
def test_bad_mode_is_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid --userns"):
        Mode.parse(text)


def test_keep_id_maps_the_user_to_himself_and_the_others_around_him() -> None:
    maps = choose(Mode("keep-id"), USER)
    assert maps.uids == (
        IdMap(0, 100000, 1000),
        IdMap(1000, 1000, 1),
        IdMap(1001, 101000, 64536),
        IdMap(65537, 300000, 10),
    )
    assert maps.gids == (IdMap(0, 200000, 100), IdMap(100, 100, 1), IdMap(101, 200100, 65436))
    assert choose(Mode("keep-id", 0, 0), USER).uids[0] == IdMap(0, 1000, 1)
    beyond = choose(Mode("keep-id", 10**6, 0), USER).uids
    assert beyond[-1] == IdMap(10**6, 1000, 1)
    assert sum(entry.size for entry in beyond) == 65547


def test_nomap_leaves_the_user_out() -> None:
    assert choose(Mode("nomap"), USER).uids == (IdMap(0, 100000, 65536), IdMap(65536, 300000, 10))


def test_autos_get_ranges_apart_until_there_are_none() -> None:
    taken: list[Maps] = []
    for _ in range(64):
        taken.append(choose(Mode("auto"), USER, taken))
    used = [entry for maps in taken for entry in maps.uids]
    assert sorted(entry.outside for entry in used) == list(range(100000, 165536, 1024))
    with pytest.raises(RlError, match="no free range of 1024 ids"):
        choose(Mode("auto"), USER, taken)
    del taken[7]
    assert choose(Mode("auto"), USER, taken).uids == (IdMap(0, 107168, 1024),)
    assert choose(Mode("auto"), USER, [], 5000).uids == (IdMap(0, 100000, 5001),)


@given(
    st.sampled_from(["keep-id", "nomap"]),
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), min_size=1, max_size=4),
)
def test_every_map_is_one_to_one(kind: str, uid: int, gaps: list[tuple[int, int]]) -> None:
    ranges, first = [], 10**6
    for gap, count in gaps:
        first += gap
        ranges.append((first, count))
        first += count
    user = Maps(build_map(1000, ranges), build_map(1000, ranges))
    mode = Mode("keep-id", uid, uid) if kind == "keep-id" else Mode("nomap")
    inside = [i for m in choose(mode, user).uids for i in range(m.inside, m.inside + m.size)]
    outside = [i for m in choose(mode, user).uids for i in range(m.outside, m.outside + m.size)]
    assert len(set(inside)) == len(inside) == len(set(outside)) == len(outside)
    assert (1000 in outside) == (kind == "keep-id")


def test_files_are_shown_as_they_are_stored_but_for_who_is_beyond() -> None:
    assert owners(USER, USER) is None
    assert owners(choose(Mode("keep-id"), USER), USER) is None
    assert owners(choose(Mode("single"), USER), USER) == {"squash_uid": 0, "squash_gid": 0}
    shown = owners(choose(Mode("keep-id", 10**6, 5), USER), USER)
    assert shown == {"uids": [(0, 0, 65546), (65546, 10**6, 1)], "gids": []}
