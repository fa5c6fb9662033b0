"""Tables, JSON and templates for rows, without any command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rootless.cli import filters, output
from rootless.cli.template.lex import TemplateError
from rootless.cli.text import printable
from rootless.errors import RlError

TITLES = {"ID": "CONTAINER ID", "Names": "NAMES", "Label": output.label_title}
ROWS: list[dict[str, Any]] = [
    {"ID": "4c01db0b339c", "Names": "web", "Label": {"a.b": "1"}.get},
    {"ID": "d7886598dbe2", "Names": "a_rather_long_name", "Label": {"a.b": "2"}.get},
]


def render(template: str | None, default: tuple[str, ...] = ("Names", "ID")) -> str:
    return output.render(ROWS, TITLES, default, template)


def test_a_table_has_dockers_columns() -> None:
    assert render(None) == (
        "NAMES                CONTAINER ID\n"
        "web                  4c01db0b339c\n"
        "a_rather_long_name   d7886598dbe2\n"
    )


def test_a_column_is_at_least_ten_wide() -> None:
    assert output.table(["TAG\tSIZE", "1\t2"]) == "TAG       SIZE\n1         2\n"


def test_an_empty_table_has_a_header() -> None:
    assert output.render([], TITLES, ("ID",), "table") == "CONTAINER ID\n"


def test_a_table_template_gets_its_header_from_the_fields() -> None:
    shown = render(r'table {{.ID}}\t{{upper .Names}}\t{{.Label "a.b"}}')
    assert shown.splitlines() == [
        "CONTAINER ID   NAMES                b",
        "4c01db0b339c   WEB                  1",
        "d7886598dbe2   A_RATHER_LONG_NAME   2",
    ]


def test_a_template_is_printed_for_each_row_without_a_header() -> None:
    assert render(r"{{.ID}}\t{{.Names}}\n").startswith("4c01db0b339c\tweb\n\n")
    assert render("").startswith("NAMES ")


def test_json_is_one_object_a_line_without_methods() -> None:
    lines = [json.loads(line) for line in render("json").splitlines()]
    assert lines == [
        {"ID": "4c01db0b339c", "Names": "web"},
        {"ID": "d7886598dbe2", "Names": "a_rather_long_name"},
    ]


def test_an_unknown_field_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(TemplateError, match="there are: ID, Names"):
        render("{{.Foo}}")
    with pytest.raises(TemplateError, match="there are: ID, Names"):
        render("table {{.Foo}}")


def test_a_name_from_an_image_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"Names": "a\x1b]0;title\x07\tb\nc"}]
    shown = output.render(rows, {"Names": "NAMES"}, ("Names",), None)
    assert shown.splitlines()[1] == r"a\x1b]0;title\x07\tb\nc"
    monkeypatch.setattr(output, "printable", str)
    assert "\x1b]0;title\x07" in output.render(rows, {"Names": "NAMES"}, ("Names",), None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï", "plain ünï"),
        ("a\x1b[31m\n\u202e", r"a\x1b[31m\n\u202e"),
        ("\udcff", r"\udcff"),
    ],
)
def test_text_for_a_terminal_has_no_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_ends_in_an_ellipsis() -> None:
    assert output.shorten("12345678901234567890", 20) == "12345678901234567890"
    assert output.shorten("123456789012345678901", 20) == "1234567890123456789…"


def test_labels_in_one_cell_are_sorted() -> None:
    assert output.label_text({"b": "2", "a": "1"}) == "a=1,b=2"


def test_filters_of_one_key_are_collected() -> None:
    assert filters.parse(["name=a", "label=x=1", "name=b"], ("name", "label")) == {
        "name": ["a", "b"],
        "label": ["x=1"],
    }


@pytest.mark.parametrize("text", ["name", "nosuch=1", "=1"])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid filter"):
        filters.parse([text], ("name",))


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(RlError, match=r"invalid filter '\('"):
        filters.any_pattern(["("])


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], True),
        (["a"], True),
        (["a=1"], True),
        (["a=2"], False),
        (["b="], True),
        (["a", "c"], False),
    ],
)
def test_labels_match_by_name_or_by_value_and_all_of_them(wanted: list[str], found: bool) -> None:
    assert filters.labels_match(wanted, {"a": "1", "b": ""}) == found
