"""How a command looks on at a container: what it connects, passes on, and leaves by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together

detach_keys = click.option(
    "--detach-keys", metavar="KEYS", help="The keys to leave it: ctrl-p,ctrl-q."
)
sig_proxy = click.option(
    "--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it (the default)."
)
options = together(detach_keys, sig_proxy)


def keys(values: Mapping[str, Any]) -> bytes:
    """Return the keys that were chosen; RlError if they are none."""
    from rootless.containers.attach import DEFAULT_KEYS, parse_keys

    chosen = values["detach_keys"]
    return parse_keys(DEFAULT_KEYS if chosen is None else chosen)
