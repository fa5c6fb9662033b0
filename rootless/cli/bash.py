"""Completion in bash, which ends words at ``:`` and ``=``, where names of ours go on.

Owns the script for bash, and how it and the command understand each other: by the whole line up to
the cursor. Imported when a key is pressed, and by `rl completion`.
"""

from __future__ import annotations

import os
from typing import Any, Final

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    split_arg_string,
)

_SCRIPT: Final = """\
%(complete_func)s() {
    local IFS=$'\\n' offered kind value
    offered=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for offered in $offered; do
        kind=${offered%%%%,*} value=${offered#*,}
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value != *[:=/] ]] || compopt -o nospace
                ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """What bash is told of completion."""

    source_template = _SCRIPT

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # What bash has for another word.
        self._before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one at the cursor, and that one."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        breaks = set(os.environ.get("COMP_WORDBREAKS", "")) & {":", "="}
        end = max((incomplete.rfind(char) for char in breaks), default=-1)
        self._before = incomplete[: end + 1]
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return what takes the place of the word as bash sees it."""
        return f"{item.type},{item.value.removeprefix(self._before)}"


def register() -> None:
    """Let click know it."""
    add_completion_class(Bash)
