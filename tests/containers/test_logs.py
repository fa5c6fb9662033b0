"""The log of a container: every line, whole, in order, on its stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rootless.cli.logs import parse_moment
from rootless.containers import log, logview
from rootless.errors import RlError
from tests.support.runner import Rl


def read_back(file: Path) -> list[logview.Record]:
    fd = os.open(file, os.O_RDONLY)
    try:
        return list(logview.records(fd, bytearray()))
    finally:
        os.close(fd)


def test_bytes_come_back_as_they_were_written(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3 + "grüße 🐚\n".encode() + b"\xed\xb2\x80\xf0\x9f\n\n"
    writer = log.Writer(tmp_path / "log")
    for start in range(0, len(data), 7):
        writer.write("stdout", data[start : start + 7])
    writer.close()
    assert b"".join(record.data for record in read_back(tmp_path / "log")) == data


def test_each_record_is_one_line_of_json_as_docker_writes_it(tmp_path: Path) -> None:
    writer = log.Writer(tmp_path / "log")
    writer.write("stdout", b"one\ntwo")
    writer.write("stderr", b"three\n")
    writer.write("stdout", b" halves\n")
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["stream"], line["log"]) for line in lines] == [
        ("stdout", "one\n"), ("stderr", "three\n"), ("stdout", "two halves\n"),
    ]  # fmt: skip
    assert set(lines[0]) == {"log", "stream", "time"}
    assert logview.moment(lines[0]["time"]) <= datetime.now(UTC)


def test_line_of_a_mebibyte_is_one_record(tmp_path: Path) -> None:
    line = b"x" * (1 << 20) + b"\n"
    writer = log.Writer(tmp_path / "log")
    for start in range(0, len(line), 65536):
        writer.write("stdout", line[start : start + 65536])
    assert [record.data for record in read_back(tmp_path / "log")] == [line]
    writer.close()


def test_record_that_a_kill_cut_off_harms_no_other(tmp_path: Path) -> None:
    writer = log.Writer(tmp_path / "log")
    writer.write("stdout", b"first\nsecond\n")
    writer.close()
    file = tmp_path / "log"
    file.write_bytes(file.read_bytes()[:-20])
    writer = log.Writer(file)
    writer.write("stdout", b"third\n")
    writer.close()
    assert [record.data for record in read_back(file)] == [b"first\n", b"third\n"]


def test_full_disk_ends_no_container_and_tears_no_record(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.symlink_to("/dev/full")
    writer = log.Writer(file)
    writer.write("stdout", b"lost\n")
    writer.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_tail_begins_at_a_line(tmp_path: Path, count: int) -> None:
    writer = log.Writer(tmp_path / "log")
    writer.write("stdout", b"1\n2\n3\n")
    writer.close()
    fd = os.open(tmp_path / "log", os.O_RDONLY)
    logview.seek_tail(fd, count)
    found = [record.data for record in logview.records(fd, bytearray())]
    os.close(fd)
    assert found == [b"1\n", b"2\n", b"3\n"][max(0, 3 - count) :]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T09:00:00Z", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("2026-01-31T10:00:00+01:00", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("1769850000", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("1h30m", datetime(2026, 1, 31, 7, 30, tzinfo=UTC)),
    ],
)
def test_times_are_understood_as_docker_does(text: str, moment: datetime) -> None:
    assert parse_moment(text, datetime(2026, 1, 31, 9, tzinfo=UTC)) == moment


def test_nonsense_is_no_time() -> None:
    with pytest.raises(RlError, match="invalid time"):
        parse_moment("yesterday", datetime.now(UTC))


def run_to_end(rl: Rl, name: str, script: str, *options: str) -> None:
    rl("run", "-d", "--name", name, *options, "alpine", "sh", "-c", script)
    rl("wait", name)


def test_streams_are_kept_apart_and_times_are_shown(rl: Rl) -> None:
    run_to_end(rl, "two", "echo out; echo err >&2; printf part")
    done = rl("logs", "two")
    assert (done.stdout, done.stderr) == ("out\npart", "err\n")
    stamped = rl("logs", "-t", "two").stdout.splitlines()
    assert [line.split(" ")[1] for line in stamped] == ["out", "part"]
    when = logview.moment(stamped[0].split(" ")[0])
    assert rl("logs", "--since", (when + timedelta(seconds=9)).isoformat(), "two").stdout == ""
    assert rl("logs", "--until", (when + timedelta(seconds=9)).isoformat(), "two").stdout != ""
    assert rl("logs", "--until", (when - timedelta(seconds=9)).isoformat(), "two").stdout == ""
    assert rl("logs", "-n", "1", "two").stdout == "part"
    rl("rm", "two")


def test_foreground_container_has_a_log_too(rl: Rl) -> None:
    rl("run", "--name", "seen", "alpine", "echo", "hello")
    assert rl("logs", "seen").stdout == "hello\n"
    assert inspect_log_path(rl, "seen").exists()
    rl("rm", "seen")


def inspect_log_path(rl: Rl, name: str) -> Path:
    return Path(rl("inspect", "-f", "{{.LogPath}}", name).stdout.strip())


def test_log_can_be_left_out(rl: Rl) -> None:
    run_to_end(rl, "mute", "echo hello", "--log-driver", "none")
    done = rl("logs", "mute", check=False)
    assert done.returncode == 125
    assert "keeps no log" in done.stderr
    rl("rm", "mute")


def test_follower_sees_all_of_a_flood_and_ends_with_the_container(rl: Rl) -> None:
    # Both streams at once, lines of a mebibyte, numbered lines, and bytes that are no text.
    script = """
        line=$(head -c 1048576 /dev/zero | tr '\\0' x)
        (i=0; while [ $i -lt 40 ]; do echo "$line"; i=$((i+1)); done) >&2 &
        seq 1 100000; printf '\\377\\000\\n'; wait
    """
    rl("run", "-d", "--name", "flood", "alpine", "sh", "-c", script)
    with rl.start("logs", "-f", "flood", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follow:
        out, err = follow.communicate(timeout=300)
    assert follow.returncode == 0
    assert out == b"".join(b"%d\n" % number for number in range(1, 100001)) + b"\xff\0\n"
    assert err == (b"x" * (1 << 20) + b"\n") * 40
    rl("rm", "flood")


def test_log_keeps_every_line_that_was_written_before_a_kill(rl: Rl) -> None:
    rl("run", "-d", "--name", "cut", "alpine", "sh", "-c", "seq 1 100000000")
    with rl.start("logs", "-f", "cut", stdout=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        seen = [follow.stdout.readline() for _ in range(5000)]
        state = json.loads((inspect_log_path(rl, "cut").parent / "state.json").read_bytes())
        os.kill(state["supervisor"]["pid"], signal.SIGKILL)
        seen += follow.stdout.readlines()
    assert seen == [b"%d\n" % number for number in range(1, len(seen) + 1)]
    assert rl("logs", "cut").stdout.encode() == b"".join(seen)
    rl("rm", "-f", "cut")
