"""The configuration of a site and of a user: /etc/rl/config.toml, then ~/.config/rl/config.toml.

Owns their names and form; what a user says replaces what the site says, field by
field. Read by whoever needs a part of it, when it is needed.
"""

from __future__ import annotations

import os
from typing import Any

from rootless.errors import RlError

_SITE = "/etc/rl/config.toml"


def files() -> list[str]:
    """Return the files that are read, the one that counts most last."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = home if home.startswith("/") else os.path.expanduser("~/.config")
    return [_SITE, f"{base}/rl/config.toml"]


def section(name: str) -> dict[str, Any]:
    """Return a table of the configuration, empty where nobody wrote one."""
    found: dict[str, Any] = {}
    for path in files():
        part = _load(path).get(name, {})
        if not isinstance(part, dict):
            raise RlError(f"{path}: {name} must be a table, [{name}]")
        found |= part
    return found


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RlError(f"cannot read {path}: {error.strerror}") from None
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise RlError(f"{path} is no TOML: {error}") from None
