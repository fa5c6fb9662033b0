"""Times and sizes as people read them, in Docker's words. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR

# From this many seconds on: the unit's length and its name. The limits are those of Docker's
# go-units, which stays with a unit for about twice its length.
_SPANS: Final = (
    (2 * 365 * _DAY, 365 * _DAY, "years"),
    (60 * _DAY, 30 * _DAY, "months"),
    (14 * _DAY, 7 * _DAY, "weeks"),
    (48 * _HOUR, _DAY, "days"),
)


# Go's units of time, but for microseconds with a µ.
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": _MINUTE, "h": _HOUR}


def parse_duration(text: str) -> float | None:
    """Return the seconds of a length of time as Go writes it, ``1h30m``; None if it is none."""
    import re

    if not re.fullmatch(r"([0-9]+(\.[0-9]*)?(ns|us|ms|s|m|h))+", text):
        return None
    found = re.findall(r"([0-9.]+)(ns|us|ms|s|m|h)", text)
    return sum(float(count) * _UNITS[unit] for count, unit in found)


def parse_time(text: str) -> datetime | None:
    """Read an RFC 3339 time with its zone; None for an empty text or an impossible time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def duration(seconds: float) -> str:
    """Return a length of time: "5 seconds", "About an hour", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < _MINUTE:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < _HOUR:
        minutes = whole // _MINUTE
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    # Hours alone are rounded.
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    for least, unit, name in _SPANS:
        if hours * _HOUR >= least:
            return f"{hours * _HOUR // unit} {name}"
    return f"{hours} hours"


def ago(text: str, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was, "N/A" for none."""
    moment = parse_time(text)
    if moment is None:
        return "N/A"
    return duration(((now or datetime.now(UTC)) - moment).total_seconds()) + " ago"


def local_time(text: str) -> str:
    """Return an RFC 3339 time in this zone: ``2026-01-31 09:00:00 +0100 CET``."""
    moment = parse_time(text)
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z") if moment else "N/A"
    except (ValueError, OverflowError):
        return "N/A"


def size(count: int) -> str:
    """Return a number of bytes in three digits and a decimal unit: "7.8MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        # 999.5 in three digits is the next unit's 1.
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.4g}PB"


def size_of(used: int, limit: int | None) -> str:
    """Return a size, and the limit that it has, if any: "2.1MB of 8.39MB"."""
    return f"{size(used)} of {size(limit)}" if limit else size(used)


def binary_size(count: int) -> str:
    """Return a number of bytes in four digits and a binary unit: "7.812MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.95:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}PiB"
