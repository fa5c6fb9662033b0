"""Go templates as `docker --format` takes them: the part of text/template that scripts use.

Pure: text and values in, text out; what a template can cost is bounded. Never
knows where the values come from. Called by rootless.cli.output and inspect.

The language is that of Go's package text/template with the functions that
Docker adds; see its documentation of "Format command and log output".
"""

from __future__ import annotations

from typing import Any, Final

from rootless.cli.template.values import Map

__all__ = ["Map", "Template"]

# Characters; nobody types more than a few hundred.
_LONGEST: Final = 1 << 14


class Template:
    """A parsed template; TemplateError (one line, exit code 125) if the text is none.

    What is needed for it is imported where it is used: most lists are made without one.
    """

    def __init__(self, source: str) -> None:
        from rootless.cli.template.functions import FUNCTIONS
        from rootless.cli.template.lex import TemplateError
        from rootless.cli.template.parse import parse

        if len(source) > _LONGEST:
            raise TemplateError(f"it is longer than {_LONGEST} characters")
        self._nodes = parse(source, FUNCTIONS)

    def render(self, value: Any) -> str:
        """Return the text for one value; TemplateError for a field that it does not have.

        Values are None, bool, int, float, str, list, dict (a struct: its keys
        are fixed), Map (its keys are data) and functions (methods).
        """
        from rootless.cli.template.execute import Execution
        from rootless.cli.template.functions import FUNCTIONS

        return Execution(value, FUNCTIONS).text(self._nodes)

    def render_header(self, titles: dict[str, str]) -> str:
        """Return the header of a table: functions that change a value leave titles alone."""
        from rootless.cli.template.execute import Execution
        from rootless.cli.template.functions import HEADER_FUNCTIONS

        return Execution(titles, HEADER_FUNCTIONS).text(self._nodes)
