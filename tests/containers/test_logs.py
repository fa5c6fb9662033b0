"""The log of a container: every line, whole, in order, on its stream."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rootless.cli.logs import parse_moment, parse_tail
from rootless.containers import log, logview
from rootless.errors import RlError
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until


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


class CountedBytes(bytes):
    """Bytes that count how often somebody asked for their length."""

    asked = 0

    def __getitem__(self, key: Any) -> Any:
        return CountedBytes(super().__getitem__(key))

    def __len__(self) -> int:
        CountedBytes.asked += 1
        return super().__len__()


def test_line_that_comes_in_crumbs_is_not_looked_at_again_for_each(tmp_path: Path) -> None:
    writer = log.Writer(tmp_path / "log")
    CountedBytes.asked = 0
    for _ in range(500):
        writer.write("stdout", CountedBytes(b"ab"))
    assert CountedBytes.asked <= 500 * 3
    writer.close()
    assert [record.data for record in read_back(tmp_path / "log")] == [b"ab" * 500]


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


def test_full_disk_ends_no_container_and_what_is_lost_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log"
    writer = log.Writer(file)
    writer.write("stdout", b"first\n")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for one more record and a part of the next: Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size * 2 + 20, hard))
    try:
        writer.write("stdout", b"secnd\n2\n3\n")
        writer.write("stdout", b"4\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.write("stderr", b"last\n")
    writer.write("stderr", b"end\n")
    writer.close()
    assert [record.data for record in read_back(file)] == [
        b"first\n", b"secnd\n", b"rl: 3 lines of the log could not be written: File too large\n",
        b"last\n", b"end\n",
    ]  # fmt: skip
    assert capsys.readouterr().err.count("the log cannot be written") == 1


def files_of(file: Path, count: int) -> list[Path]:
    return [older for number in range(count) if (older := log.older(file, number)).exists()][::-1]


@pytest.mark.parametrize("files", [1, 2, 4])
def test_log_is_bounded_and_keeps_what_came_last(tmp_path: Path, files: int) -> None:
    file = tmp_path / "log"
    writer = log.Writer(file, log.Limits(2000, files))
    lines = [b"%d\n" % number for number in range(500)]
    writer.write("stdout", b"".join(lines[:300]))
    for line in lines[300:]:
        writer.write("stdout", line)
    writer.close()
    kept = files_of(file, 10)
    assert len(kept) == files
    assert all(2000 <= part.stat().st_size < 2100 for part in kept[:-1])
    found = [record.data for part in kept for record in read_back(part)]
    assert found == lines[-len(found) :]
    assert len(found) > 15 * files


def test_log_goes_on_where_a_supervisor_left_it(tmp_path: Path) -> None:
    file = tmp_path / "log"
    for number in range(40):
        writer = log.Writer(file, log.Limits(500, 3))
        writer.write("stdout", b"%d\n" % number)
        writer.close()
    found = [record.data for part in files_of(file, 9) for record in read_back(part)]
    assert len(files_of(file, 9)) == 3
    assert found == [b"%d\n" % number for number in range(40 - len(found), 40)]


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, log.Limits(None, 1)),
        ({"max-size": "10m", "max-file": "3"}, log.Limits(10_000_000, 3)),
        ({"max-size": "1.5kB"}, log.Limits(1500, 1)),
        ({"max-size": "2G"}, log.Limits(2_000_000_000, 1)),
    ],
)
def test_limits_are_written_as_in_docker(options: dict[str, str], limits: log.Limits) -> None:
    assert log.Limits.parse(options) == limits


@pytest.mark.parametrize(
    "options",
    [
        {"max-size": "big"}, {"max-size": "-1"}, {"max-size": "0"}, {"max-size": "infm"},
        {"max-file": "2"}, {"max-size": "1m", "max-file": "0"}, {"tag": "x"},
    ],
)  # fmt: skip
def test_limits_that_make_no_sense_are_an_error(options: dict[str, str]) -> None:
    with pytest.raises(RlError):
        log.Limits.parse(options)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_tail_begins_at_a_line(tmp_path: Path, count: int) -> None:
    writer = log.Writer(tmp_path / "log")
    writer.write("stdout", b"1\n2\n3\n")
    writer.close()
    fd = os.open(tmp_path / "log", os.O_RDONLY)
    logview.seek_tail([fd], count)
    found = [record.data for record in logview.records(fd, bytearray())]
    os.close(fd)
    assert found == [b"1\n", b"2\n", b"3\n"][max(0, 3 - count) :]


@pytest.mark.parametrize("count", range(9))
def test_tail_goes_back_through_older_files(tmp_path: Path, count: int) -> None:
    file = tmp_path / "log"
    for number, lines in ((2, b"1\n2\n3\n"), (1, b"4\n"), (0, b"5\n6\n")):
        writer = log.Writer(log.older(file, number))
        writer.write("stdout", lines)
        writer.close()
    fds = [os.open(part, os.O_RDONLY) for part in files_of(file, 3)]
    logview.seek_tail(fds, count)
    found = [record.data for fd in fds for record in logview.records(fd, bytearray())]
    assert found == [b"%d\n" % number for number in range(1, 7)][max(0, 6 - count) :]
    for fd in fds:
        os.close(fd)


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


@pytest.mark.parametrize(("text", "lines"), [("all", None), ("-1", None), ("0", 0), ("12", 12)])
def test_tail_is_a_number_or_all(text: str, lines: int | None) -> None:
    assert parse_tail(text) == lines


def test_nonsense_is_no_number_of_lines() -> None:
    with pytest.raises(RlError, match="invalid number of lines 'x'"):
        parse_tail("x")


@pytest.mark.parametrize("text", ["yesterday", "9" * 400 + "h", "1e300", "0001-01-01T00:00+14:00"])
def test_nonsense_is_no_time(text: str) -> None:
    with pytest.raises(RlError, match="invalid time"):
        parse_moment(text, datetime.now(UTC))


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


@pytest.mark.parametrize("files", ["1", "3"])
def test_follower_loses_and_tears_nothing_when_the_log_is_replaced(rl: Rl, files: str) -> None:
    options = ("--log-opt", "max-size=100k", "--log-opt", f"max-file={files}")
    # It waits for the follower, who has to see all of it, and then writes as fast as it can.
    script = "echo 0; read go; seq 1 60000"
    rl("run", "-d", "-i", "--name", "turned", *options, "alpine", "sh", "-c", script)
    with rl.start("logs", "-f", "turned", stdout=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == b"0\n"
        rl("attach", "turned", input="go\n")
        lines = follow.stdout.read().split()
    assert follow.returncode == 0
    assert lines == [b"%d" % number for number in range(1, 60001)]
    kept = files_of(inspect_log_path(rl, "turned"), 9)
    assert len(kept) == int(files)
    assert all(part.stat().st_size < 101_000 for part in kept)
    shown = rl("logs", "turned").stdout.split()
    assert shown == [str(number) for number in range(60001 - len(shown), 60001)]
    assert rl("logs", "-n", "1500", "turned").stdout.split() == shown[-1500:]
    config = rl("inspect", "-f", "{{json .HostConfig.LogConfig}}", "turned").stdout
    assert json.loads(config)["Config"] == {"max-size": "100k", "max-file": files}
    rl("rm", "turned")


def test_follower_that_stalls_delays_nobody_and_is_told_what_it_missed(rl: Rl) -> None:
    # Each of the thousand files that it does not read would be kept for it.
    options = ("--log-opt", "max-size=1k", "--log-opt", "max-file=2")
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; read go; seq 1 20000"
    rl("run", "-d", "-i", "--name", "missed", *options, "alpine", "sh", "-c", script)
    with rl.start("logs", "-f", "missed", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        # It has more to print than its pipe takes.
        assert follow.stdout.read(1) == b"x"
        rl("attach", "missed", input="go\n")
        assert rl("logs", "-n", "1", "missed").stdout == "20000\n"
        out, err = follow.communicate(timeout=PATIENCE)
    assert follow.returncode == 125
    assert b"written faster than it was read" in err
    assert b"\n20000\n" not in out
    rl("rm", "missed")


def test_follower_stops_at_a_time(rl: Rl) -> None:
    rl("run", "-d", "--name", "timed", "alpine", "sh", "-c", "echo up; sleep 1000")
    wait_until(lambda: rl("logs", "timed").stdout)
    assert rl("logs", "-f", "--since", "1h", "--until", "0s", "timed").stdout == "up\n"
    rl("rm", "-f", "timed")
