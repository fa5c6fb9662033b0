"""Where hostile layers are unpacked: a store, and beside it what must not change.

Beside the store lies a canary directory that a way out would reach, by absolute path and by
``..``. Used by the tests of hostile layers.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless.errors import RlError
from tests.images.archives import (
    TAR,
    Tree,
    sha256,
    snapshot,
    unpack,
)


class Place:
    """A store and, beside it, a canary that must not change."""

    def __init__(self, base: Path) -> None:
        self.store = base / "store"
        self.canary = base / "canary"
        self.canary.mkdir(parents=True)
        (self.canary / "file").write_text("untouched")
        (self.canary / "empty").mkdir()
        self.before = snapshot(self.canary)

    def unpack(
        self,
        data: bytes,
        media_type: str = TAR,
        diff_id: str | None = None,
        contents: bool = True,
    ) -> Tree:
        try:
            return unpack(self.store, data, media_type, diff_id, contents)
        finally:
            assert snapshot(self.canary) == self.before
            assert set(os.listdir(self.canary.parent)) == {"canary", "store"}
            assert os.listdir(self.store / "tmp") == []

    def refuse(self, data: bytes, media_type: str = TAR, diff_id: str | None = None) -> str:
        """Return the line by which the layer is refused; nothing of it may be in the store."""
        with pytest.raises(RlError) as raised:
            self.unpack(data, media_type, diff_id)
        assert os.listdir(self.store / "layers") == []
        line = str(raised.value)
        assert line.isprintable()
        assert line.startswith(f"cannot unpack layer {(diff_id or sha256(data))[:19]}: ")
        return line.split(": ", 1)[1]
