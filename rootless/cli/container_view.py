"""Containers as `rl ps` shows and chooses them, in Docker's field names.

Pure: from a store's Container to rows. What `rl inspect` shows is container_inspect's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rootless.cli import filters, network_view
from rootless.cli.output import Row, label_method, label_text, label_title, shorten
from rootless.cli.template.values import Struct, quote
from rootless.cli.units import ago, duration, local_time, parse_time
from rootless.containers.restart import Policy
from rootless.containers.store import Container
from rootless.errors import RlError

if TYPE_CHECKING:
    pass

TITLES: Final = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Labels": "LABELS",
    "Label": label_title,
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "Size": "SIZE",
}
COLUMNS: Final = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
FILTERS: Final = (
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish",
    "restart-policy", "should-start-on-boot", "since", "status", "volume",
)  # fmt: skip

_STATUSES: Final = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTH_TEXTS: Final = {
    "starting": " (health: starting)", "healthy": " (healthy)", "unhealthy": " (unhealthy)",
}  # fmt: skip


def row(container: Container, *, truncate: bool, now: datetime) -> Row:
    """Return one container's row; ``Label`` is a method, everything else text."""
    extra = container.extra
    command = " ".join(container.config["process"]["args"])
    mounts = [
        mount.get("Name") or mount["Source"]
        for mount in mounts_of(container)
        if mount["Type"] != "tmpfs"
    ]
    return {
        "ID": container.id[:12] if truncate else container.id,
        "Names": container.name,
        "Image": _image_name(extra.image, truncate),
        "Command": quote(shorten(command, 20) if truncate else command),
        "CreatedAt": local_time(container.created),
        "RunningFor": ago(container.created, now),
        "Status": status(container, now),
        "State": shown_status(container),
        "Ports": network_view.column(container),
        "Labels": label_text(extra.labels),
        "Label": label_method(extra.labels),
        "LocalVolumes": str(len(extra.volumes)),
        "Mounts": ",".join(shorten(mount, 15) if truncate else mount for mount in mounts),
        "Networks": ",".join(network_view.names(container)),
        "Size": "0B",
    }


def shown_status(container: Container) -> str:
    """Return the status in one word; a paused container runs as well."""
    return "paused" if container.paused else container.state.status


# What `rl ps --sort` goes by; the size is not the view's to know.
ORDERS: Final[Mapping[str, Callable[[Container], Any]]] = {
    "command": lambda container: container.config["process"]["args"],
    "created": lambda container: container.created,
    "id": lambda container: container.id,
    "image": lambda container: container.extra.image,
    "names": lambda container: container.name,
    "runningfor": lambda container: container.state.started_at or "",
    "status": shown_status,
}


def status(container: Container, now: datetime) -> str:
    """Return Docker's sentence: "Up 2 minutes", "Exited (0) 3 hours ago", "Created"."""
    state = container.state
    if state.status == "created":
        return "Created"
    if state.status == "running":
        started = parse_time(state.started_at)
        up = f"Up {duration((now - started).total_seconds())}" if started else "Up"
        up += _HEALTH_TEXTS.get(_health(container), "")
        return f"{up} (Paused)" if container.paused else up
    since = f" {ago(state.finished_at, now)}" if state.finished_at else ""
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}){since}"
    return f"Exited ({state.exit_code}){since}"


def policy_of(container: Container) -> Policy:
    """Return when a container is started again."""
    return Policy.parse(container.restart)


def _starts_on_boot(container: Container, wanted: Mapping[str, list[str]]) -> bool:
    answer = str(policy_of(container).on_boot(stopped=container.state.stopped)).lower()
    return answer in map(str.lower, wanted["should-start-on-boot"])


def _health(container: Container) -> str:
    return str(container.health["Status"]) if container.health else "none"


def _image_name(name: str, truncate: bool) -> str:
    """Return the name as it was given; an ID among them in its short form."""
    hexadecimal = name.removeprefix("sha256:")
    if truncate and len(hexadecimal) == 64 and set(hexadecimal) <= set("0123456789abcdef"):
        return hexadecimal[:12]
    return name


def shows_all(wanted: Mapping[str, list[str]]) -> bool:
    """Tell whether filters ask for containers that do not run."""
    return "status" in wanted or "exited" in wanted


def selected(
    container: Container, wanted: Mapping[str, list[str]], ancestors: frozenset[str]
) -> bool:
    """Tell whether the filters let a container through.

    ``ancestors`` are the IDs of the images that the values of ``ancestor`` mean.
    """
    state = container.state
    for value in wanted.get("status", ()):
        if value not in _STATUSES:
            raise RlError(f"invalid filter 'status={value}': there are {', '.join(_STATUSES)}")
    for value in wanted.get("health", ()):
        if value not in ("none", *_HEALTH_TEXTS):
            raise RlError(
                f"invalid filter 'health={value}': there are none, {', '.join(_HEALTH_TEXTS)}"
            )
    for value in wanted.get("exited", ()):
        if not re.fullmatch("-?[0-9]{1,9}", value):
            raise RlError(f"invalid filter 'exited={value}': an exit status is a number")
    names, ids = wanted.get("name"), wanted.get("id")
    return (
        (not names or _name_matches(container.name, names))
        and (not ids or bool(filters.any_pattern(ids).match(container.id)))
        and ("status" not in wanted or shown_status(container) in wanted["status"])
        and (
            "exited" not in wanted
            or (state.status == "exited" and state.exit_code in map(int, wanted["exited"]))
        )
        and ("health" not in wanted or _health(container) in wanted["health"])
        and (
            "restart-policy" not in wanted or policy_of(container).name in wanted["restart-policy"]
        )
        and ("should-start-on-boot" not in wanted or _starts_on_boot(container, wanted))
        and ("ancestor" not in wanted or _descends(container, wanted["ancestor"], ancestors))
        and ("network" not in wanted or network_view.has_network(container, wanted["network"]))
        and network_view.has_port(container, wanted)
        and ("volume" not in wanted or not set(wanted["volume"]).isdisjoint(_volumes(container)))
        and filters.labels_match(wanted.get("label", ()), container.extra.labels)
    )


def _volumes(container: Container) -> Iterator[str]:
    """Yield what --filter volume= may call the mounts of a container."""
    for mount in mounts_of(container):
        yield mount["Destination"]
        yield mount.get("Name") or mount["Source"]


def _name_matches(name: str, patterns: list[str]) -> bool:
    # Docker finds names with and without their slash.
    pattern = filters.any_pattern(patterns)
    return bool(pattern.search(name) or pattern.search(f"/{name}"))


def _descends(container: Container, names: list[str], ids: frozenset[str]) -> bool:
    extra = container.extra
    return extra.image_id in ids or any(_same_name(extra.image, name) for name in names)


def _same_name(first: str, second: str) -> bool:
    from rootless.images.reference import Reference

    try:
        return Reference.parse(first) == Reference.parse(second)
    except RlError:
        return first == second


def mounts_of(container: Container) -> Iterator[dict[str, Any]]:
    """Yield what was mounted for the user or the image, not what every container has."""
    extra = container.extra
    asked = {mount["target"] for mount in extra.request["mounts"]}.union(extra.binds)
    for mount in container.config["mounts"]:
        target, options = mount["destination"], mount.get("options", [])
        volume = extra.volumes.get(target)
        if volume is None and target not in asked:
            continue
        from rootless.containers.request import PROPAGATIONS

        propagation = [option for option in options if option in PROPAGATIONS]
        found = {
            "Type": "volume" if volume else mount["type"],
            **({"Name": volume} if volume else {}),
            "Source": "" if mount["type"] == "tmpfs" else mount["source"],
            "Destination": target,
            **({"Driver": "local"} if volume else {}),
            "Mode": "",
            "RW": "ro" not in options,
            "Propagation": propagation[0] if propagation else "rprivate",
        }
        yield Struct(found, Name="", Driver="")
