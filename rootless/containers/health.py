"""What a container's health check is, and what its results mean: Docker's HEALTHCHECK. Pure.

Owns the merge of the image's check with what was asked for, and the rules by
which a container becomes healthy or unhealthy. Times are nanoseconds, as in
the image specification, until a ``Check`` makes seconds of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rootless.errors import RlError

_SECOND: Final = 10**9
_INTERVAL: Final = 30.0
_TIMEOUT: Final = 30.0
_START_INTERVAL: Final = 5.0
_RETRIES: Final = 3
# Docker's least; for an image, whose check nobody asked for, a second.
_LEAST_ASKED: Final = _SECOND // 1000
_LEAST_OF_IMAGE: Final = _SECOND
_LARGEST: Final = 1 << 62

# Docker's: how many results are kept, and how much of what each printed.
MOST_RESULTS: Final = 5
LONGEST_OUTPUT: Final = 4096

_TIMES: Final = ("Interval", "Timeout", "StartPeriod", "StartInterval")


class Health(NamedTuple):
    """What was asked for: --health-*; None is what the image says."""

    cmd: str | None = None
    interval: int | None = None
    timeout: int | None = None
    retries: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    disabled: bool = False


class Check(NamedTuple):
    """A check as it is carried out; times are seconds."""

    args: Sequence[str]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int

    @classmethod
    def of(cls, healthcheck: Mapping[str, Any] | None) -> Check | None:
        """Return the check that ``merged`` decided on, None where there is none to carry out."""
        match list((healthcheck or {}).get("Test", ())):
            case ["CMD", *args] if args:
                pass
            case ["CMD-SHELL", command]:
                args = ["/bin/sh", "-c", command]
            case _:
                return None
        assert healthcheck is not None
        seconds = {name: healthcheck.get(name, 0) / _SECOND for name in _TIMES}
        return cls(
            args=args,
            interval=seconds["Interval"] or _INTERVAL,
            timeout=seconds["Timeout"] or _TIMEOUT,
            start_period=seconds["StartPeriod"],
            start_interval=seconds["StartInterval"] or _START_INTERVAL,
            retries=healthcheck.get("Retries") or _RETRIES,
        )

    def pause(self, status: str, since_start: float) -> float:
        """Return the seconds until the next time."""
        starting = status == "starting" and since_start < self.start_period
        return self.start_interval if starting else self.interval


def merged(image: Mapping[str, Any] | None, asked: Health) -> dict[str, Any] | None:
    """Return the check of a container, in the form that images have; RlError if it is invalid."""
    if asked.disabled or asked.cmd == "none":
        return {"Test": ["NONE"]}
    found = _checked(image) if image is not None else {}
    if asked.cmd is not None:
        found["Test"] = ["CMD-SHELL", asked.cmd]
    chosen = {
        "Interval": asked.interval,
        "Timeout": asked.timeout,
        "StartPeriod": asked.start_period,
        "StartInterval": asked.start_interval,
    }
    for name, value in chosen.items():
        if value is not None:
            found[name] = _time(name, value, _LEAST_ASKED)
    if asked.retries is not None:
        found["Retries"] = asked.retries
    return found or None


def _checked(image: Mapping[str, Any]) -> dict[str, Any]:
    test = image.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(arg, str) for arg in test):
        raise _invalid("Test is no list of texts")
    match test:
        case [] | ["NONE"] | ["CMD-SHELL", _]:
            pass
        case ["CMD", *args] if args:
            pass
        case _:
            raise _invalid(f"Test is of an unknown form, {test[0][:100]!r}")
    found: dict[str, Any] = {"Test": test} if test else {}
    for name in (*_TIMES, "Retries"):
        value = image.get(name) or 0
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise _invalid(f"{name} is no such number")
        if value:
            found[name] = value if name == "Retries" else max(value, _LEAST_OF_IMAGE)
    return found


def _invalid(why: str) -> RlError:
    return RlError(f"invalid image: its health check's {why} (--no-healthcheck leaves it out)")


def _time(name: str, value: int, least: int) -> int:
    if 0 < value < least or value >= _LARGEST:
        raise RlError(f"{name} in Healthcheck cannot be less than 1ms or more than 146 years")
    return value


def beginning() -> dict[str, Any]:
    """Return the health of a container that was just started, as inspect shows it."""
    return {"Status": "starting", "FailingStreak": 0, "Log": []}


def after(
    health: Mapping[str, Any], result: Mapping[str, Any], check: Check, since_start: float
) -> dict[str, Any]:
    """Return the health after one more result."""
    status, streak = health["Status"], health["FailingStreak"]
    if result["ExitCode"] == 0:
        status, streak = "healthy", 0
    elif status != "starting" or since_start >= check.start_period:
        streak += 1
        if streak >= check.retries:
            status = "unhealthy"
    log = [*health["Log"], dict(result)][-MOST_RESULTS:]
    return {"Status": status, "FailingStreak": streak, "Log": log}
