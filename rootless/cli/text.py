"""Text of unknown origin made fit for a terminal. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with control characters written as \x1b, \n…

    Names, labels and commands come from images and registries: none of them
    may move the cursor or retitle the window of the person who reads.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
