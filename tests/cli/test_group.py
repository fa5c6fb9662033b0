"""The command line as a whole: names, help, errors and exit codes."""

from __future__ import annotations

import logging

import click
import pytest
from click.testing import CliRunner

from rootless import __version__
from rootless.cli import execute, group
from rootless.cli.lazy import LazyGroup

CONTEXT = click.Context(group, info_name="rl")


def every_command() -> list[tuple[str, click.Command, str]]:
    found = []
    for line, entries in [("rl", group), *((f"rl {name}", section(name)) for name in SECTIONS)]:
        assert isinstance(entries, LazyGroup)
        for name, entry in entries._entries.items():
            command = entries.get_command(CONTEXT, name)
            assert command is not None
            found.append((f"{line} {name}", command, entry.help))
    return found


SECTIONS = ("container", "image", "network", "system")


def section(name: str) -> click.Command | None:
    return group.get_command(CONTEXT, name)


@pytest.mark.parametrize(("line", "command", "listed"), every_command())
def test_a_command_is_listed_with_its_own_first_line(
    line: str, command: click.Command, listed: str
) -> None:
    assert command.get_short_help_str(limit=200).rstrip(".") == listed.rstrip(".")


@pytest.mark.parametrize(("line", "command", "listed"), every_command())
def test_every_command_explains_itself(line: str, command: click.Command, listed: str) -> None:
    result = CliRunner().invoke(group, [*line.split()[1:], "--help"], prog_name="rl")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {line} ")


@pytest.mark.parametrize(
    ("spoken", "same"),
    [
        ("container ls", "ps"),
        ("container rm", "rm"),
        ("container run", "run"),
        ("container create", "create"),
        ("container start", "start"),
        ("container logs", "logs"),
        ("image ls", "images"),
        ("image pull", "pull"),
        ("image rm", "rmi"),
        ("system info", "info"),
    ],
)
def test_dockers_longer_names_are_the_same_commands(spoken: str, same: str) -> None:
    first, second = spoken.split()
    inner = section(first)
    assert isinstance(inner, LazyGroup)
    assert inner.get_command(CONTEXT, second) is group.get_command(CONTEXT, same)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["imges"], "'imges' is not a command of rl (did you mean 'rl images'? See 'rl --help')"),
        (["xyzzy"], "'xyzzy' is not a command of rl (see 'rl --help')"),
        (["image", "lst"], "'lst' is not a command of rl image (did you mean 'rl image ls'?"),
        (["version", "-f", "{{.Foo}}"], "rl: template parsing error: at <.Foo>:"),
        (["a\x1b[2J\nb"], r"'a\x1b[2J\nb' is not a command"),
        (["plugin", "x"], "rl: 'plugin' is not here yet (see 'rl --help')\n"),
        (
            ["container", "commit"],
            "rl: 'container commit' is not here yet (see 'rl container --help')\n",
        ),
        (["login"], "'login' is not here yet: meanwhile 'skopeo login' does it (see 'rl --help')"),
        (["run", "--runtime", "x", "alpine"], "rl: 'rl run' does not know --runtime yet\n"),
        (["container", "run", "--gpus=all", "x"], "'rl container run' does not know --gpus yet\n"),
        (["rm", "-d", "x"], "rl: No such option '-d' (see 'rl rm --help')\n"),
    ],
)
def test_a_failure_is_one_line_on_stderr(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 125
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("rl: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nosuch"], "No such option"),
        (["ps", "--nosuch"], "No such option"),
        (["rm"], "Missing argument"),
        (["ps", "-n", "x"], "is not a valid integer"),
        (["inspect", "--type", "plugin", "x"], "is not one of"),
        (["version", "more"], "unexpected extra argument"),
    ],
)
def test_a_wrong_use_is_one_line_with_dockers_exit_code(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 125
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("rl: ")
    assert said in shown.err
    assert " (see 'rl" in shown.err
    assert shown.err.endswith(" --help')\n")
    assert shown.err.count("\n") == 1


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    execute([])
    shown = capsys.readouterr()
    assert "Run a command in a new container" in shown.out + shown.err


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["-v"], ["--version"], ["image", "-h"]])
def test_help_and_version_succeed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(arguments) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        ([], "Usage: rl "),
        (["run"], "Usage: rl run [OPTIONS] IMAGE"),
        (["image", "ls"], "Usage: rl image ls "),
    ],
)
def test_help_explains_a_command(
    arguments: list[str], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["help", *arguments]) == 0
    assert capsys.readouterr().out.startswith(usage)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["help", "imges"], "did you mean 'rl images'?"),
        (["help", "ps", "x"], "'rl ps' has no command 'x'"),
        (["stop", "--all", "x"], "--all chooses the containers: name none (see 'rl stop --help')"),
        (["kill"], "Missing argument 'CONTAINER...' (see 'rl kill --help')"),
        (["ps", "-n"], "Option '-n' requires an argument (see 'rl ps --help')"),
        (["run", "--name"], "Option '--name' requires an argument (see 'rl run --help')"),
        (["stop", "-s=NOSUCH", "x"], "invalid signal: NOSUCH"),
    ],
)
def test_names_that_fit_not_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 125
    assert said in capsys.readouterr().err


def test_scripts_learn_of_a_server_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["version", "--format", "{{.Server.Version}}"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def fail() -> None:
    raise ValueError("of ours\nin two lines")


# A defect cannot be had on demand: this one is put where a command computes its answer.
def test_a_defect_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rootless.cli.version.versions", fail)
    assert execute(["version"]) == 125
    assert capsys.readouterr().err == (
        "rl: internal error: ValueError: of ours\\nin two lines (run `rl --debug …` for details)\n"
    )


def test_debug_shows_where_a_failure_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rootless.cli.version.versions", fail)
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    assert execute(["--debug", "version"]) == 125
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "in fail" in shown
    assert shown.endswith("rl: internal error: ValueError: of ours\\nin two lines\n")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_command_ends_as_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootless.cli.version.versions", interrupt)
    assert execute(["version"]) == 130
