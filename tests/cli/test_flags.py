"""Flags with a value, as scripts that were written for Docker give them."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from rootless.cli.flags import FlagCommand


@click.command(cls=FlagCommand, context_settings={"allow_interspersed_args": False})
@click.option("-t", "--tty", is_flag=True)
@click.option("-i", "interactive", is_flag=True)
@click.option("--rm", is_flag=True)
@click.option("-e", "--env", multiple=True)
@click.argument("words", nargs=-1)
def show(tty: bool, interactive: bool, rm: bool, env: tuple[str, ...], words: list[str]) -> None:
    flags = "t" * tty + "i" * interactive + "r" * rm
    click.echo(" ".join([flags or "none", *env, "|", *words]))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("--rm=true -t=false x", "r | x"),
        ("--rm=1 --tty=0 -i=T", "ir |"),
        ("-it -t=false", "i |"),
        ("--rm=false --rm", "r |"),
        ("--rm --rm=false", "none |"),
        ("x --rm=true", "none | x --rm=true"),
        ("-- --rm=true", "none | --rm=true"),
        ("-e --rm=true x", "none --rm=true | x"),
        ("-ite --rm=true --rm=true x", "tir --rm=true | x"),
        ("-eA=b --rm=true x", "r A=b | x"),
        ("--env=A --rm=true x", "r A | x"),
        ("--env --rm=true --rm x", "r --rm=true | x"),
        ("-e=A=1 -e=/d -e==x x", "none A=1 /d =x | x"),
        ("-ite=A=1 --rm=true x", "tir A=1 | x"),
        ("-e= x", "none = | x"),
        ("-ti=false --rm=true x", "tr | x"),
        ("-it=false x", "i | x"),
        ("-e -e=A x", "none -e=A | x"),
        ("x -e=A", "none | x -e=A"),
    ],
)
def test_a_flag_may_have_a_value_before_the_first_argument(line: str, shown: str) -> None:
    result = CliRunner().invoke(show, line.split())
    assert result.output == shown + "\n"


@pytest.mark.parametrize(
    "line", ["--rm=maybe", "--rm=", "-t=maybe", "-it=maybe", "-x=1", "-e", "--nosuch=true"]
)
def test_what_is_neither_true_nor_false_is_refused(line: str) -> None:
    assert CliRunner().invoke(show, line.split()).exit_code == 2


def test_a_mistake_is_answered_by_spellings_that_can_be_typed() -> None:
    output = CliRunner().invoke(show, ["--rmi"]).output
    assert "--rm" in output
    assert "\0" not in output
    assert "\\x00" not in output
