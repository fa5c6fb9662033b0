"""What may be a name of a container, a volume or a network: one rule, which is Docker's.

Names are directories and files in the store. Called by all who take a name from outside.
"""

from __future__ import annotations

from typing import Final

# A start compiles no regular expression for them.
_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST: Final = _FIRST | frozenset("_.-")


def valid_name(name: str) -> bool:
    """Tell whether ``name`` may name something: [a-zA-Z0-9][a-zA-Z0-9_.-]*."""
    return name[:1] in _FIRST and _REST.issuperset(name)
