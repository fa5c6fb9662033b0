"""Messages between processes of ours."""

from __future__ import annotations

from rootless.channel import Channel


def test_last_words_of_one_who_has_not_read_everything_are_heard() -> None:
    here, there = Channel.pair()
    here.send({"question": 1})
    there.send({"error": "why"})
    there.close()
    assert here.receive() == ({"error": "why"}, [])
    assert here.receive() == (None, [])
    here.close()
