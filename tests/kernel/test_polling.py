"""Waiting for descriptors."""

from __future__ import annotations

import os
import select
import threading

import pytest

from rootless.kernel import polling


def test_wait_may_be_longer_than_poll_takes() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    for seconds in (3e6, 1 << 62, 10**400):
        assert polling.wait({reader: select.POLLIN}, seconds) == {reader}
    os.close(reader)
    os.close(writer)


def test_wait_goes_on_where_one_poll_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_LONGEST_POLL_MILLISECONDS", 1)
    reader, writer = os.pipe()
    assert polling.wait({reader: select.POLLIN}, 0.01) == set()
    later = threading.Timer(0.05, os.write, (writer, b"x"))
    later.start()
    assert polling.wait({reader: select.POLLIN}, 600) == {reader}
    later.join()
    os.close(reader)
    os.close(writer)
