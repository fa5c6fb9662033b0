"""How it is found out whether what runs in a container works: --health-*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together
from rootless.containers.health import Health
from rootless.errors import RlError

_TIMES = ("interval", "timeout", "start_period", "start_interval")

options = together(
    click.option("--health-cmd", metavar="COMMAND", help="Check its health by this command."),
    click.option("--health-interval", metavar="TIME", help="How long between checks: 30s."),
    click.option("--health-timeout", metavar="TIME", help="How long a check may take: 30s."),
    click.option(
        "--health-retries",
        type=click.IntRange(min=0),
        metavar="N",
        help="How many failures in a row make it unhealthy: 3.",
    ),
    click.option("--health-start-period", metavar="TIME", help="When failures begin to count: 0s."),
    click.option(
        "--health-start-interval", metavar="TIME", help="How long between checks then: 5s."
    ),
    click.option("--no-healthcheck", is_flag=True, help="Do not check its health."),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's field; RlError where the options contradict each other."""
    asked = {
        "cmd": values["health_cmd"],
        "retries": values["health_retries"],
        **{name: _nanoseconds(values[f"health_{name}"]) for name in _TIMES},
    }
    disabled = values["no_healthcheck"]
    if disabled and any(value is not None for value in asked.values()):
        raise RlError("--no-healthcheck conflicts with --health-* options")
    return {"health": Health(**asked, disabled=disabled)}


def _nanoseconds(text: str | None) -> int | None:
    if text is None:
        return None
    from rootless.cli.units import parse_duration

    seconds = 0.0 if text == "0" else parse_duration(text)
    if seconds is None:
        raise RlError(f"invalid duration {text!r}: expected such as 30s or 1m30s")
    return int(seconds * 10**9)
