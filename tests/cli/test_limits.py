"""The options for limits: Docker's units, Docker's errors."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rootless.cli.options.limits import changed, chosen
from rootless.containers.limits import Limits, resources, stored
from rootless.errors import RlError
from rootless.sizes import parse_size

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("512b", 512),
        ("2k", 2048),
        ("64m", 64 * MIB),
        ("64MB", 64 * MIB),
        ("64MiB", 64 * MIB),
        ("1.5g", 1536 * MIB),
        ("1T", MIB * MIB),
        (str(2**60 + 1), 2**60 + 1),
    ],
)
def test_a_size_has_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1 000", "0x10", "1e3", "٣m", "1m\n2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"memory": "64m"}, {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        (
            {"memory": "64m", "memory_swap": "64m"},
            {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
        ),
        ({"memory": "64m", "memory_swap": "-1"}, {"memory": {"limit": 64 * MIB, "swap": -1}}),
        ({"memory_reservation": "1m"}, {"memory": {"reservation": MIB}}),
        ({"memory_high": "9m"}, {"unified": {"memory.high": str(9 * MIB)}}),
        ({"cpus": "0.5"}, {"cpu": {"quota": 50000, "period": 100000}}),
        ({"cpu_quota": 5000, "cpu_period": 10000}, {"cpu": {"quota": 5000, "period": 10000}}),
        ({"cpu_shares": 1}, {"cpu": {"shares": 2}}),
        ({"cpuset_cpus": "0,2-3"}, {"cpu": {"cpus": "0,2-3"}}),
        ({"pids_limit": -1}, {"pids": {"limit": -1}}),
        ({"blkio_weight": 300}, {"blockIO": {"weight": 300}}),
    ],
)
def test_options_are_the_resources_of_config_json(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert resources(changed(Limits(), given)) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"memory": "5m"}, "minimum memory limit allowed is 6MB"),
        ({"memory": "6m", "memory_swap": "5m"}, "should be larger than memory limit"),
        ({"memory_swap": "5m"}, "--memory-swap needs --memory"),
        ({"memory": "6m", "memory_reservation": "7m"}, "memory reservation limit"),
        ({"cpus": "0.001"}, "range of CPUs is from 0.01 to"),
        ({"cpus": str(2 * (os.cpu_count() or 1))}, "range of CPUs is from 0.01 to"),
        ({"cpus": "nan"}, "invalid number of processors"),
        ({"cpus": "1", "cpu_quota": 5000}, "conflicting options"),
        ({"cpu_period": 999}, "CPU cfs period"),
        ({"cpu_quota": 999}, "CPU cfs quota"),
        ({"cpu_shares": -1}, "invalid CPU shares"),
        ({"cpuset_cpus": "a\nb"}, "invalid value"),
        ({"blkio_weight": 9}, "range of blkio weight is from 10 to 1000"),
        ({"oom_score_adj": 1001}, "range for oom score adj"),
        ({"device_read_bps": ("/dev/null:1m",)}, "it is no block device"),
        ({"device_read_bps": ("/dev/nothing:1m",)}, "No such file or directory"),
        ({"device_read_iops": ("/dev/null:1m",)}, "bad format"),
        ({"device_write_bps": ("/etc/passwd:1",)}, "bad format"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RlError, match=said):
        changed(Limits(), given)


def test_no_option_is_no_limit() -> None:
    assert chosen({"memory": None, "device_read_bps": (), "cgroups": None}) == {}


def test_an_update_keeps_what_it_does_not_name() -> None:
    first = changed(Limits(), {"cpu_quota": 5000, "cpu_period": 10000, "pids_limit": 7})
    second = changed(first, {"cpus": "1"})
    assert (second.nano_cpus, second.cpu_quota, second.cpu_period) == (10**9, 0, 0)
    assert second.pids_limit == 7
    assert changed(second, {"cpu_quota": 5000}).nano_cpus == 0


def test_limits_of_another_version_are_read() -> None:
    assert stored({"memory": 7, "unknown": 1}) == Limits(memory=7)
