"""`rl exec` as two processes: a child reads the command line while we load what is done then.

Owns what they tell each other. Reading takes click, which takes as long to load as all the rest;
neither needs what the other loads. Called by main.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any


def execute(arguments: Sequence[str]) -> int:
    """Run the command `rl exec …`, and return its exit status."""
    reader, writer = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            os._exit(_read(arguments, writer))
        os.close(writer)
        from rootless.containers import execution
        from rootless.paths import state_root

        with open(reader, "rb") as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        if status or not said:
            # It has said what is wrong, or shown the help.
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        return execution.run(state_root(), **json.loads(said))
    except BaseException as error:
        from rootless.cli import failed

        return failed(error, debug=False)


def _read(arguments: Sequence[str], writer: int) -> int:
    from rootless import cli

    def hand_over(wanted: Mapping[str, Any]) -> None:
        with open(writer, "wb") as file:
            file.write(json.dumps(wanted).encode("ascii"))

    return cli.execute(arguments, hand_over)
