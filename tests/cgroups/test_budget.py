"""[budget] of the configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rootless.cgroups.budget import Budget
from rootless.containers.cgroup import budget_of
from rootless.errors import RlError


def test_what_is_given_is_limited_and_nothing_else() -> None:
    assert budget_of({}) == Budget()
    assert budget_of({"memory": "96m", "cpus": 2}) == Budget(96 << 20, 2.0, None)
    assert budget_of({"memory": 4096, "cpus": 0.5, "pids": 40}) == Budget(4096, 0.5, 40)


@pytest.mark.parametrize(
    "given",
    [
        *({"cpus": value} for value in (math.inf, math.nan, -1, 0, 10**400, True, "2")),
        *({"pids": value} for value in (-1, 0, 1.5, 1 << 70, True, "2")),
        *({"memory": value} for value in (-1, 0, "9" * 30, 1 << 70, True, "x", [1])),
        {"disk": 1},
    ],
)
def test_nonsense_is_told_by_its_name(given: dict[str, Any]) -> None:
    with pytest.raises(RlError, match=rf"\[budget\].*{min(given)}"):
        budget_of(given)
