"""From config.json's linux.resources to the files of cgroup v2."""

from __future__ import annotations

from typing import Any

import pytest

from rootless.cgroups.resources import (
    Setting,
    bfq_weight,
    controllers,
    cpu_weight,
    io_weight,
    settings,
)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, []),
        ({"memory": {"limit": 64, "swap": 100}}, [("memory.max", "64"), ("memory.swap.max", "36")]),
        ({"memory": {"limit": 64, "swap": -1}}, [("memory.max", "64"), ("memory.swap.max", "max")]),
        ({"cpu": {"quota": 50000, "period": 100000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"period": 20000}}, [("cpu.max", "max 20000")]),
        ({"cpu": {"quota": 20000}}, [("cpu.max", "20000 100000")]),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": 9}}, [("pids.max", "9")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"unified": {"memory.high": "5"}}, [("memory.high", "5")]),
    ],
)
def test_a_limit_of_the_container_is_a_file_of_its_cgroup(
    resources: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert settings(resources) == [Setting(file, value) for file, value in expected]


def test_weights_and_rates_count_for_the_container_with_its_servers() -> None:
    device = {"major": 8, "minor": 0, "rate": 1000}
    block = {"weight": 500, "throttleReadBpsDevice": [device], "throttleWriteIOPSDevice": [device]}
    assert settings({"cpu": {"shares": 1024}, "blockIO": block}) == [
        Setting("cpu.weight", "39", shared=True),
        Setting("io.bfq.weight", "default 540", shared=True),
        Setting("io.weight", "default 4950", shared=True),
        Setting("io.max", "8:0 rbps=1000", shared=True),
        Setting("io.max", "8:0 wiops=1000", shared=True),
    ]


def test_memory_is_reserved_for_the_container_and_for_what_it_is_in() -> None:
    assert settings({"memory": {"limit": -1, "reservation": 7}}) == [
        Setting("memory.max", "max"),
        Setting("memory.low", "7", shared=True),
        Setting("memory.low", "7"),
    ]


def test_the_ends_of_weights_are_those_of_both_versions() -> None:
    assert (cpu_weight(2), cpu_weight(262144)) == (1, 10000)
    assert (io_weight(10), io_weight(1000)) == (1, 10000)
    assert (bfq_weight(10), bfq_weight(1000)) == (1, 1000)


def test_only_the_controllers_that_are_needed_are_asked_for() -> None:
    assert controllers({"memory": {"limit": 1}, "pids": {"limit": 1}}) == {"memory", "pids"}
    assert controllers({}) == set()
