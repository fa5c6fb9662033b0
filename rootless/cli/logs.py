"""`rl logs`."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings
from rootless.cli.units import parse_duration
from rootless.errors import RlError


@click.command(cls=FlagCommand)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until it ends.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with its time.")
@click.option("-n", "--tail", default="all", metavar="N", help="Only the last N lines.")
@click.option("--since", metavar="TIME", help="Only from then on: RFC 3339, seconds, or ago (5m).")
@click.option("--until", metavar="TIME", help="Only until then.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.containers)
@pass_settings
def logs(
    settings: Settings,
    follow: bool,
    timestamps: bool,
    tail: str,
    since: str | None,
    until: str | None,
    name: str,
) -> None:
    """Show what a container printed."""
    from rootless.containers import logview
    from rootless.containers.store import ContainerStore

    container = ContainerStore(settings.root).get(name)
    if container.extra.request.get("log_driver") == "none":
        raise RlError(f"container {container.name} keeps no log (--log-driver none)")
    now = datetime.now(UTC)
    logview.show(
        container,
        logview.Selection(
            tail=parse_tail(tail),
            since=parse_moment(since, now) if since else None,
            until=parse_moment(until, now) if until else None,
        ),
        follow=follow,
        timestamps=timestamps,
    )


def parse_tail(text: str) -> int | None:
    """Read a number of lines; None, as any number below 0, is all."""
    if text == "all":
        return None
    try:
        number = int(text)
    except ValueError:
        raise RlError(f"invalid number of lines {text!r}: expected a number or all") from None
    return number if number >= 0 else None


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a time as Docker does: RFC 3339, seconds since 1970, or how long ago (1h30m)."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError):
        pass
    if (seconds := parse_duration(text)) is not None:
        with contextlib.suppress(OverflowError):
            return now - timedelta(seconds=seconds)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise RlError(
            f"invalid time {text!r}: expected such as 2026-01-31T09:00:00Z, 1769850000 or 10m"
        ) from None
