"""`rl events`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

_FILTERS = ("container", "daemon", "event", "image", "label", "network", "scope", "type", "volume")


@click.command(cls=FlagCommand)
@click.option("--since", metavar="TIME", help="Also those from then on: RFC 3339, seconds, 5m.")
@click.option("--until", metavar="TIME", help="Only those until then.")
@click.option(
    "--stream/--no-stream", default=True, help="Wait for more (the default), or show what there is."
)
@click.option(
    "-f",
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete.keys(*_FILTERS),
    help="Show some, by container, event, image, label, network, type, volume.",
)
@click.option("--format", "template", metavar="FORMAT", help='"json" or a Go template.')
@pass_settings
def events(
    settings: Settings,
    since: str | None,
    until: str | None,
    stream: bool,
    conditions: tuple[str, ...],
    template: str | None,
) -> None:
    """Show what happens to containers, images, volumes and networks.

    As it happens, or until a time.
    """
    import json

    from rootless import eventview
    from rootless.cli import filters
    from rootless.cli.logs import parse_moment
    from rootless.cli.template import Template

    wanted = filters.parse(conditions, _FILTERS)
    now = datetime.now(UTC)
    if not stream:
        since, until = since or "0", until or "0s"
    limits = [parse_moment(text, now).timestamp() if text else None for text in (since, until)]
    parsed = Template(template) if template and template != "json" else None
    for event in eventview.read(settings.root, *limits):
        if not selected(event, wanted):
            continue
        if parsed:
            text = parsed.render(fields(event))
        else:
            text = json.dumps(event, ensure_ascii=False) if template else line(event)
        # Out at once, whoever reads it.
        click.echo(text)


def line(event: Mapping[str, Any]) -> str:
    """Return an event as `docker events` prints it; nothing in it can steer a terminal."""
    from rootless.cli.text import printable

    seconds, nanoseconds = divmod(event["timeNano"], 10**9)
    zone = datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%dT%H:%M:%S{}%z")
    offset = f"{zone[-5:-2]}:{zone[-2:]}" if not zone.endswith("+0000") else "Z"
    when = zone[:-5].format(f".{nanoseconds:09}") + offset
    actor = event["Actor"]
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(actor["Attributes"].items()))
    said = f"{event['Type']} {event['Action']} {actor['ID']} ({attributes})"
    return f"{when} {printable(said)}"


def fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template can name."""
    from rootless.cli.template import Map

    actor = event["Actor"]
    return {
        "Type": event["Type"],
        "Action": event["Action"],
        "Actor": {"ID": actor["ID"], "Attributes": Map(actor["Attributes"])},
        "Status": event.get("status", ""),
        "ID": event.get("id", ""),
        "From": event.get("from", ""),
        "Scope": event.get("scope", "local"),
        "Time": event["timeNano"] // 10**9,
        "TimeNano": event["timeNano"],
    }


def selected(event: Mapping[str, Any], wanted: Mapping[str, list[str]]) -> bool:
    """Tell whether the filters let an event through: by IDs and names, or how they begin."""
    from rootless.cli import filters

    kind, actor = event["Type"], event["Actor"]["ID"]
    attributes = event["Actor"]["Attributes"]
    # "health_status: healthy" is also found as health_status.
    actions = {event["Action"], event["Action"].partition(":")[0]}
    of_image = {attributes.get("image", ""), attributes.get("image", "").partition(":")[0]}
    if kind == "image":
        of_image = {actor, attributes.get("name", "")}

    def is_about(other: str) -> bool:
        names = (actor, attributes.get("name", "")) if kind == other else (attributes.get(other),)
        return any(name and name.startswith(start) for start in wanted[other] for name in names)

    return (
        ("type" not in wanted or kind in wanted["type"])
        and ("scope" not in wanted or event.get("scope") in wanted["scope"])
        and ("event" not in wanted or not actions.isdisjoint(wanted["event"]))
        and ("image" not in wanted or not of_image.isdisjoint(wanted["image"]))
        and all(is_about(other) for other in ("container", "network", "volume") if other in wanted)
        and filters.labels_match(wanted.get("label", ()), attributes)
    )
