"""`rl healthcheck run`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command("run", cls=FlagCommand)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@pass_settings
def run(settings: Settings, name: str) -> int:
    """Check the health of a running container now.

    The exit code is 0 if it is well, 1 if it is not.
    """
    from datetime import UTC, datetime

    from rootless.cli.units import parse_time
    from rootless.containers import healthstate, probe
    from rootless.containers.health import Check
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    container = ContainerStore(settings.root).get(name)
    check = Check.of(container.extra.healthcheck)
    if check is None:
        raise RlError(f"container {name} has no defined healthcheck")
    started = parse_time(container.state.started_at)
    if container.state.status != "running" or started is None:
        raise container.not_running()
    result = probe.run(container, check)
    since = (datetime.now(UTC) - started).total_seconds()
    status = healthstate.add(container, check, result, since)
    if result["ExitCode"] == 0:
        return 0
    click.echo(status)
    return 1
