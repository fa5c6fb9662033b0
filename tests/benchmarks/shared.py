"""What all benchmarks share: commands that must succeed, and Markdown tables.

Knows nothing of what is measured. Used by the programs beside it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path


def quietly(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(
        command,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def cache() -> Path:
    """Return where the Debian image is kept between runs."""
    return Path(os.environ.get("RL_TEST_CACHE") or Path.home() / ".cache/rl-tests")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table: names in the first column, figures to the right of it."""
    print(f"\n| {' | '.join(header)} |\n| --- |{' ---: |' * (len(header) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
