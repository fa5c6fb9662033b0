"""What the documents say of this repository is there."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_every_test_that_the_security_document_names_is_there() -> None:
    text = (REPOSITORY / "docs/security.md").read_text()
    path, missing, count = Path(), [], 0
    for named, name in re.findall(r"`(?:([\w/]*test_\w+\.py))?(?:::(test_\w+))?`", text):
        if named:
            path = REPOSITORY / named
            if "/" not in named:
                path = REPOSITORY / "tests/containers" / named
        if named or name:
            count += 1
            found = path.is_file() and (not name or f"def {name}(" in path.read_text())
            missing += [] if found else [f"{named}::{name}"]
    assert missing == []
    assert count > 40
