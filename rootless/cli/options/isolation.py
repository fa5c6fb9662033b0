"""What the container's processes may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli import complete
from rootless.cli.options import together
from rootless.containers import isolation

options = together(
    click.option("--privileged", is_flag=True, help="All capabilities, nothing hidden, /dev."),
    click.option(
        "--cap-add",
        multiple=True,
        metavar="CAPABILITY",
        shell_complete=complete.capabilities,
        help="Add a capability, or ALL.",
    ),
    click.option(
        "--cap-drop",
        multiple=True,
        metavar="CAPABILITY",
        shell_complete=complete.capabilities,
        help="Drop a capability, or ALL.",
    ),
    click.option(
        "--security-opt",
        multiple=True,
        metavar="OPTION",
        shell_complete=complete.words(
            "no-new-privileges",
            "seccomp=",
            "unmask=",
            "mask=",
            "systempaths=unconfined",
        ),
        help="no-new-privileges, seccomp=FILE|unconfined, unmask=PATHS|ALL, mask=PATHS, …",
    ),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError for an option that is not known."""
    names = ("privileged", "cap_add", "cap_drop", "security_opt")
    return {"isolation": isolation.parse(**{name: values[name] for name in names})}
