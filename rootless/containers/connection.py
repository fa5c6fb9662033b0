"""One of the user networks that a container has, as ``networks`` of state.json holds it.

Pure. What is damaged there is found when it is read: the whole state is, at once, so that other
containers, who look at their neighbours, never meet it. Called by ``state`` and ``connections``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rootless.networks.user import Attachment
from rootless.networks.wish import Wish


class Connection(NamedTuple):
    """A network that a container has: what it wants there, and what it got when it last started."""

    wish: Wish
    attachment: Attachment | None = None
    endpoint: str = ""

    def record(self) -> dict[str, Any]:
        """Return it as state.json holds it."""
        attachment = self.attachment and self.attachment._asdict()
        wish = self.wish._asdict()
        return {"wish": wish, "attachment": attachment, "endpoint": self.endpoint}

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Connection:
        """Return what ``record`` wrote; ValueError, KeyError or TypeError if it is damaged."""
        found = fields["attachment"]
        if found is not None:
            found = Attachment(**_texts(found, "addresses", "names", "dns"))
        (endpoint,) = _texts({"endpoint": fields["endpoint"]}).values()
        return cls(Wish(**_texts(fields["wish"], "aliases")), found, endpoint)


def _texts(fields: Mapping[str, Any], *listed: str) -> dict[str, Any]:
    """Return fields that are texts, or tuples of texts where they are ``listed``."""
    found: dict[str, Any] = {}
    for name, value in {**fields}.items():
        values = value if name in listed else [value]
        if not isinstance(values, list | tuple) or not all(isinstance(one, str) for one in values):
            raise ValueError(f"its {name} on a network is damaged")
        found[name] = tuple(values) if name in listed else value
    return found
