"""The server is killed while programs work: what was done is there, what was begun is whole."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.fuse_overlay.support import (
    in_namespace,
    kernel_mounted,
    layers,
    mount_options,
    mounted,
    tree,
)

State = dict[str, bytes | None]
"""What a directory holds: the contents of files, None for directories."""

Step = tuple[str, str, str]
"""An operation, the name that it is about, and another name or the seed of a content."""

ROUNDS = 5
WRITERS = 4
_PATCH = b"patched" * 100


def _content(seed: str) -> bytes:
    choices = random.Random(seed)
    return choices.randbytes(choices.choice([0, 10, 1000, 20_000, 300_000, 2_000_000]))


def _lower_state(writer: int) -> State:
    state: State = {f"low-{i}": _content(f"{writer} {i}") for i in range(12)}
    for i in range(4):
        state |= {f"dir-{i}": None, f"dir-{i}/sub": None}
        state |= {f"dir-{i}/sub/{name}": _content(f"{writer} {i} {name}") for name in "ab"}
    return state


def _fill(directory: Path, state: State) -> None:
    directory.mkdir()
    for name, content in state.items():
        if content is None:
            (directory / name).mkdir()
        else:
            (directory / name).write_bytes(content)


def _read(directory: Path) -> State:
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


def _choose(state: State, choices: random.Random, fresh: str) -> Step:
    """What to do next with a directory."""
    files = [name for name, content in state.items() if content is not None]
    tops = [name for name, content in state.items() if content is None and "/" not in name]
    operation = choices.choice("create create replace touch patch remove move".split())
    if operation == "move":
        return operation, choices.choice(tops), f"moved-{fresh}"
    parent = choices.choice(["", "", *(f"{top}/sub/" for top in tops)])
    if operation == "create" or len(files) < 10:
        return "create", f"{parent}new-{fresh}", fresh
    if operation == "replace":
        source, target = choices.sample(files, 2)
        return operation, source, target
    return operation, choices.choice(files), ""


def _after(state: State, step: Step) -> State:
    """What a directory holds after a step."""
    operation, name, other = step
    state = dict(state)
    if operation == "create":
        state[name] = _content(other)
    elif operation == "replace":
        state[other] = state.pop(name)
    elif operation == "patch":
        content = state[name]
        assert content is not None
        state[name] = _PATCH + content[len(_PATCH) :]
    elif operation == "remove":
        del state[name]
    elif operation == "move":
        moved = [path for path in state if path == name or path.startswith(f"{name}/")]
        state |= {other + path.removeprefix(name): state.pop(path) for path in moved}
    return state


def _perform(directory: Path, step: Step) -> None:
    operation, name, other = step
    if operation == "create":
        with open(directory / name, "xb") as file:
            file.write(_content(other))
            file.flush()
            os.fsync(file.fileno())
    elif operation in ("replace", "move"):
        os.rename(directory / name, directory / other)
    elif operation == "touch":
        os.utime(directory / name)
    elif operation == "patch":
        fd = os.open(directory / name, os.O_WRONLY)
        os.write(fd, _PATCH)
        os.fsync(fd)
        os.close(fd)
    else:
        os.unlink(directory / name)


def _write(directory: Path, state: State, seed: str, log: int) -> None:
    """Do one thing after another, saying so before and after, until the server is gone."""
    choices = random.Random(seed)
    for turn in range(100_000):
        step = _choose(state, choices, f"{seed}-{turn}".replace(" ", "-"))
        os.write(log, json.dumps([directory.name, "begin", step]).encode() + b"\n")
        try:
            _perform(directory, step)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
                raise
            return
        os.write(log, json.dumps([directory.name, "done", step]).encode() + b"\n")
        state = _after(state, step)


def _possible(state: State, begun: Step | None, found: State) -> Iterator[State]:
    """What may be found where `begun` was going on when the server was killed."""
    yield state
    if begun is not None:
        after = _after(state, begun)
        yield after
        name = begun[1]
        content, whole = found.get(name), after.get(name)
        # What was not synced yet may be there in part.
        if begun[0] == "create" and content is not None and (whole or b"").startswith(content):
            yield state | {name: content}


def _work_until_killed(
    m: Path, server: list[str | Path], states: dict[str, State], seed: str
) -> dict[str, tuple[State, Step | None]]:
    """Serve `m`, let a writer work in each directory, and kill the server.

    Returns of each directory what it has to hold and what was going on.
    """
    running = subprocess.Popen(server)
    while not (m / "w0").exists():
        assert running.poll() is None
    choices = random.Random(seed)
    reader, log = os.pipe()
    children = []
    for name, state in states.items():
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                _write(m / name, state, f"{seed} {name}", log)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(log)
    kill_after = choices.randrange(20, 400)
    known: dict[str, tuple[State, Step | None]] = {name: (s, None) for name, s in states.items()}
    with open(reader, "rb") as lines:
        for number, line in enumerate(lines):
            if number == kill_after:
                running.kill()
            name, what, (operation, first, second) = json.loads(line)
            step = (operation, first, second)
            state = known[name][0]
            known[name] = (state, step) if what == "begin" else (_after(state, step), None)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    subprocess.run(["umount", "-l", m], check=True)
    return known


@in_namespace
def test_a_killed_server_leaves_what_was_done_and_nothing_by_halves(tmp_path: Path) -> None:
    low, upper, work, kernel_work = layers(tmp_path, "low", "upper", "work", "kernel-work")
    seed = os.environ.get("RL_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))
    sys.stderr.write(f"RL_TEST_SEED={seed}\n")
    m = tmp_path / "m"
    m.mkdir()
    states = {f"w{writer}": _lower_state(writer) for writer in range(WRITERS)}
    for name, state in states.items():
        _fill(low / name, state)
    options = mount_options([low], upper, work)
    server: list[str | Path] = [sys.executable, "-m", "fuse_overlay", "-f", "-o", options, m]
    for turn in range(ROUNDS):
        known = _work_until_killed(m, server, states, f"{seed} {turn}")
        with mounted([low], upper, work, m):
            assert os.listdir(work / "work") == []
            assert sorted(os.listdir(m)) == sorted(states)
            for name, (state, begun) in known.items():
                found = states[name] = _read(m / name)
                if found not in _possible(state, begun, found):
                    differing = [
                        key
                        for key in sorted(state.keys() | found.keys())
                        if key not in state or key not in found or state[key] != found[key]
                    ]
                    raise AssertionError(f"seed {seed}, round {turn}, {name} {begun}: {differing}")
            (m / "works").write_text("yes")
            assert (m / "works").read_text() == "yes"
            (m / "works").unlink()
            ours = tree(m)
        with kernel_mounted([low], upper, kernel_work, m):
            assert tree(m) == ours
    assert all(_read(low / f"w{writer}") == _lower_state(writer) for writer in range(WRITERS))
