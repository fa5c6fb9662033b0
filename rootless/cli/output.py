"""Lists on stdout, as Docker prints them: a table, JSON, or a template for each row.

Owns the layout of tables and the meaning of --format; never decides what the
rows hold. Pure. Called by the commands that list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rootless.cli.template import Template
from rootless.cli.text import printable

Row = dict[str, Any]

# As Docker's tables: at least 10 wide, with 3 blanks between.
_NARROWEST: Final = 10
_GAP: Final = 3


def render(
    rows: Sequence[Row],
    titles: Mapping[str, Any],
    default: Sequence[str],
    template: str | None,
    *,
    heading: bool = True,
) -> str:
    r"""Return the lines for ``rows``, whose fields ``titles`` names as the header does.

    ``template`` is that of --format: None or ``table`` for the columns of
    ``default``; ``table {{.A}}\t{{.B}}``; ``json``; or a template for each row.
    """
    template = (template or "table").strip(" ")
    if template == "table":
        lines = ["\t".join(titles[field] for field in default)]
        lines += ["\t".join(printable(row[field]) for field in default) for row in rows]
        return table(lines if heading else lines[1:])
    if template == "json":
        template = "{{json .}}"
    # In a list's template these two are what they are in a shell's $'…'.
    template = template.replace(r"\t", "\t").replace(r"\n", "\n")
    if template.startswith(("table ", "table\t", "table{{")):
        row_template = Template(template.removeprefix("table").lstrip(" "))
        lines = [row_template.render_header(dict(titles))]
        lines += [row_template.render(_printable(row)) for row in rows]
        return table(lines if heading else lines[1:])
    row_template = Template(template)
    return "".join(row_template.render(row) + "\n" for row in rows)


def table(lines: Sequence[str]) -> str:
    """Return lines of cells divided by tabs as columns; the last cell of a line is not padded."""
    cells = [line.split("\t") for line in lines]
    widths: list[int] = []
    for line in cells:
        for column, cell in enumerate(line[:-1]):
            if column == len(widths):
                widths.append(_NARROWEST)
            widths[column] = max(widths[column], len(cell) + _GAP)
    return "".join(
        "".join(map(str.ljust, line, (*widths[: len(line) - 1], 0))) + "\n" for line in cells
    )


def shorten(text: str, length: int) -> str:
    """Return ``text``, or as much of it as fits with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def label_text(labels: Mapping[str, str]) -> str:
    """Return labels in one cell: ``a=1,b=2``."""
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))


def label_method(labels: Mapping[str, str]) -> Callable[[str], str]:
    """Return what ``{{.Label "name"}}`` calls."""
    return lambda name: labels.get(name, "")


def label_title(name: str) -> str:
    """Return the header of a column ``{{.Label "com.example.some-name"}}``: ``some name``."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _printable(row: Row) -> Row:
    return {
        field: printable(value) if isinstance(value, str) else value for field, value in row.items()
    }
