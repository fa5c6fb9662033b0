"""Times and sizes in Docker's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rootless.cli import units

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1.9, "1 second"),
        (2, "2 seconds"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
        (3650 * DAY, "10 years"),
    ],
)
def test_a_duration_is_rounded_as_docker_rounds_it(seconds: float, words: str) -> None:
    assert units.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1100656, "1.1MB"),
        (7_795_000, "7.79MB"),
        (77_800_000, "77.8MB"),
        (117_000_000, "117MB"),
        (999_499, "999kB"),
        (999_500, "1MB"),
        (1_020_000_000, "1.02GB"),
        (3 * 10**15, "3PB"),
        (12345 * 10**15, "1.234e+04PB"),
    ],
)
def test_a_size_has_three_digits_and_a_decimal_unit(count: int, words: str) -> None:
    assert units.size(count) == words


def test_an_age_counts_from_a_time_in_any_zone() -> None:
    now = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    assert units.ago("2026-01-02T11:00:00Z", now) == "About an hour ago"
    assert units.ago("2026-01-02T13:59:59.123456789+03:00", now) == "About an hour ago"


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00"])
def test_what_is_no_time_is_not_available(text: str) -> None:
    assert units.ago(text) == "N/A"
    assert units.local_time(text) == "N/A"


def test_a_time_shows_its_zone() -> None:
    shown = units.local_time("2026-01-02T11:00:00Z")
    assert datetime.strptime(shown[:25], "%Y-%m-%d %H:%M:%S %z") == datetime(
        2026, 1, 2, 11, tzinfo=UTC
    )


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_at_the_end_of_the_calendar_is_no_error(text: str) -> None:
    assert units.local_time(text)
    assert units.ago(text)
