"""Hard links of lower files: linked after a copy-up, a remount and a kill, counted right."""

from __future__ import annotations

import functools
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuse_overlay.overlay import Overlay
from tests.fuse_overlay.made import Made, content, create, look, names, write
from tests.fuse_overlay.support import fill, whiteout


def test_hard_links_stay_linked_when_one_is_copied_up(made: Made) -> None:
    fill(made.bottom, {"a": "low", "d/": ""})
    os.link(made.bottom / "a", made.bottom / "d/b")
    os.link(made.bottom / "a", made.bottom / "c")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        write(overlay, number, b"changed")
        for path in ("a", "d/b", "c"):
            assert look(overlay, path)[0::2][:2] == (number, 3)
            assert content(overlay, path) == b"changed"
    with made.overlay() as overlay:  # after a remount, the other name first
        assert content(overlay, "d/b") == b"changed"
        assert look(overlay, "d/b").number == look(overlay, "a").number
        assert look(overlay, "c").links == 3
        overlay.unlink(1, b"a")
        assert look(overlay, "c").links == 2
        overlay.rename(1, b"c", 1, b"e")
        assert content(overlay, "e") == b"changed"
        overlay.link(look(overlay, "e").number, 1, b"g")
        assert look(overlay, "d/b").links == 3
    with made.overlay() as overlay:
        assert names(overlay) == ["d", "e", "g"]
        assert look(overlay, "g")[0::2][:2] == (look(overlay, "d/b").number, 3)
        overlay.unlink(look(overlay, "d").number, b"b")
        overlay.unlink(1, b"e")
        assert look(overlay, "g").links == 1
        overlay.unlink(1, b"g")
        assert os.listdir(made.work / "links") == []


def test_the_link_count_of_a_lower_file_falls_with_its_names(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    os.link(made.bottom / "a", made.bottom / "b")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        overlay.unlink(1, b"a")
        assert overlay.getattr(number).links == 1
        assert look(overlay, "b")[0::2][:2] == (number, 1)
        write(overlay, number, b"upper")
        assert overlay.getattr(number).links == 1
        overlay.unlink(1, b"b")
        assert overlay.getattr(number).links == 0
        assert names(overlay) == []


def test_the_link_count_of_a_lower_file_is_right_after_a_remount(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    for name in "bcd":
        os.link(made.bottom / "a", made.bottom / name)
    for left, removed in ((3, b"a"), (2, b"b")):
        with made.overlay() as overlay:
            overlay.unlink(1, removed)
            assert look(overlay, "d").links == left
        with made.overlay() as overlay:
            assert look(overlay, "d").links == left
    with made.overlay() as overlay:
        write(overlay, look(overlay, "c").number, b"NEW")
        assert look(overlay, "d").links == 2
        overlay.unlink(1, b"c")
    with made.overlay() as overlay:
        assert look(overlay, "d").links == 1
        overlay.unlink(1, b"d")
        assert os.listdir(made.work / "links") == []


def test_nothing_is_kept_of_a_lower_file_whose_names_were_all_removed(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    os.link(made.bottom / "a", made.bottom / "b")
    for name in (b"a", b"b"):
        with made.overlay() as overlay:
            overlay.unlink(1, name)
    assert os.listdir(made.work / "links") == []


def _link_below(made: Made) -> None:
    """Make a file with three names: one hidden by a layer, one in a directory."""
    fill(made.bottom, {"a": "low", "d/": ""})
    os.link(made.bottom / "a", made.bottom / "d/b")
    os.link(made.bottom / "a", made.bottom / "hidden")
    whiteout(made.top / "hidden")


def test_the_copy_of_a_linked_file_goes_with_its_last_name_whenever_each_is_removed(
    made: Made,
) -> None:
    _link_below(made)
    os.link(made.bottom / "a", made.bottom / "d/c")
    with made.overlay() as overlay:
        overlay.unlink(look(overlay, "d").number, b"c")  # before there is a copy
    with made.overlay() as overlay:
        write(overlay, look(overlay, "a").number, b"new")
        overlay.unlink(1, b"a")
    for _ in "12":  # is found, and is found again
        with made.overlay() as overlay:
            assert content(overlay, "d/b") == b"new"
            assert os.lstat(made.upper / "d/b").st_nlink == 2
    with made.overlay() as overlay:
        overlay.unlink(look(overlay, "d").number, b"b")
    with made.overlay() as overlay:
        assert os.listdir(made.work / "links") == []
        assert names(overlay, look(overlay, "d").number) == []


def test_a_copy_is_kept_while_its_lower_file_cannot_be_found(made: Made) -> None:
    _link_below(made)
    with made.overlay() as overlay:
        write(overlay, look(overlay, "a").number, b"new")
        overlay.unlink(1, b"a")
    os.rename(made.bottom / "d/b", made.work / "elsewhere")
    for path in (made.bottom / "hidden", made.top / "hidden"):
        path.rename(made.work / f"hidden-{path.parent.name}")
    with made.overlay():
        assert len(os.listdir(made.work / "links")) == 1
    fill(made.work / "links", {"foreign": "", "foreign.1": "", "1-2-3.x": ""})
    os.rename(made.work / "elsewhere", made.bottom / "d/b")
    with made.overlay():
        assert len(os.listdir(made.work / "links")) == 4


_CHANGING = "link mkdir mknod open rename rmdir setxattr symlink unlink utime".split()
"""The functions of `os` that may change a directory."""


def _killed_at(step: int, function: Callable[[], None]) -> bool:
    """Do something in a process that ends instead of changing anything for the `step`th time.

    Returns whether it was done before.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    counting = itertools.count()

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(counting) == step:
                os._exit(0)
            return function(*args, **kwargs)

        return counted

    for name in _CHANGING:
        setattr(os, name, dying(getattr(os, name)))
    function()
    os._exit(1)


def test_linked_files_survive_a_kill_between_any_two_steps(made: Made, tmp_path: Path) -> None:
    for step in itertools.count():
        here = Made(tmp_path / str(step))
        _link_below(here)
        os.link(here.bottom / "a", here.bottom / "d/e")
        with here.overlay() as overlay:
            directory = look(overlay, "d").number
            finished = _killed_at(step, functools.partial(_change_linked, overlay, directory))
        with here.overlay() as overlay:
            assert names(overlay) in (["a", "d"], ["d"], ["c", "d"])
            directory = look(overlay, "d").number
            paths = [name for name in names(overlay) if name != "d"]
            paths += [f"d/{name}" for name in names(overlay, directory)]
            assert {content(overlay, path) for path in paths} in ({b"low"}, {b"NEW"}, set())
            for path in paths:
                parent = directory if path.startswith("d/") else 1
                overlay.unlink(parent, os.fsencode(path.removeprefix("d/")))
        with here.overlay() as overlay:
            assert _copies(here) == []
            assert names(overlay) == ["d"]
        if finished:
            break
    assert step > 10


def _change_linked(overlay: Overlay, directory: int) -> None:
    overlay.unlink(directory, b"e")
    write(overlay, look(overlay, "a").number, b"NEW")
    overlay.unlink(1, b"a")
    overlay.rename(directory, b"b", 1, b"c")
    overlay.unlink(1, b"c")


def _copies(made: Made) -> list[str]:
    return [name for name in os.listdir(made.work / "links") if "lost" not in name]


def test_a_server_that_is_killed_while_it_starts_leaves_linked_files_whole(
    made: Made, tmp_path: Path
) -> None:
    def start() -> None:
        with here.overlay():
            pass

    for step in itertools.count():
        here = Made(tmp_path / str(step))
        _link_below(here)
        os.link(here.bottom / "a", here.bottom / "d/e")
        with here.overlay() as overlay:
            write(overlay, look(overlay, "a").number, b"NEW")
            overlay.unlink(1, b"a")
        finished = _killed_at(step, start)
        with here.overlay() as overlay:
            directory = look(overlay, "d").number
            assert names(overlay, directory) == ["b", "e"]
            for name in ("b", "e"):
                assert content(overlay, f"d/{name}") == b"NEW"
                overlay.unlink(directory, name.encode())
        with here.overlay():
            assert _copies(here) == []
        if finished:
            break
    assert step > 5


def test_files_that_two_layers_share_on_disk_are_not_linked_in_the_overlay(made: Made) -> None:
    fill(made.bottom, {"a": "shared"})
    os.link(made.bottom / "a", made.top / "b")
    with made.overlay() as overlay:
        write(overlay, look(overlay, "a").number, b"CHANGED")
        assert content(overlay, "b") == b"shared"
        assert look(overlay, "a").number != look(overlay, "b").number


def test_a_name_found_again_after_another_was_removed_is_the_same_file(made: Made) -> None:
    with made.overlay() as overlay:
        number = create(overlay, 1, b"a").number
        overlay.link(number, 1, b"b")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        overlay.unlink(1, b"a")  # "b" was never looked up: no known name reaches the inode
        assert overlay.getattr(number).links == 1
        overlay.setattr(number, mode=0o600)
        assert look(overlay, "b").number == number
        assert look(overlay, "b").mode == stat.S_IFREG | 0o600


def test_a_lower_file_changed_without_a_known_name_keeps_its_other_ones(made: Made) -> None:
    fill(made.bottom, {"a": "low"})
    os.link(made.bottom / "a", made.bottom / "b")
    with made.overlay() as overlay:
        number = look(overlay, "a").number
        overlay.unlink(1, b"a")
        overlay.write(number, 0, b"NEW")
        assert overlay.getattr(number).links == 1
        assert look(overlay, "b").number == number
        assert content(overlay, "b") == b"NEW"
    with made.overlay() as overlay:
        assert names(overlay) == ["b"]
        assert content(overlay, "b") == b"NEW"
