"""What happens to a container, as an event: with its image, its name and its labels.

Called by whoever did it, when it is done. ``rootless.events`` keeps it.
"""

from __future__ import annotations

from rootless import events
from rootless.containers.store import Container


def announce(container: Container, action: str, **attributes: str) -> None:
    """Write an event of a container down; ``attributes`` are those of the action."""
    extra = container.extra
    known = {"image": extra.image, "name": container.name, **attributes}
    events.record(
        container.path.parent.parent, "container", action, container.id, known | dict(extra.labels)
    )
