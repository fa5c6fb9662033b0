"""The argument of --network that names a user network."""

from __future__ import annotations

import json

import pytest

from rootless.errors import RlError
from rootless.networks.wish import Wish, check_all, parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("net", Wish("net")),
        ("net:ip=10.89.0.7", Wish("net", ip="10.89.0.7")),
        ("net:ip=fd00::7", Wish("net", ip6="fd00::7")),
        ("net:ip6=FD00:0::7,ip=10.0.0.1", Wish("net", ip="10.0.0.1", ip6="fd00::7")),
        ("net:mac=92-D0-C6-0A-29-33", Wish("net", mac="92:d0:c6:0a:29:33")),
        ("net:alias=a,alias=b.c", Wish("net", aliases=("a", "b.c"))),
        ("net:interface_name=lan", Wish("net", interface="lan")),
        ("name=net,alias=a,mac-address=92:d0:c6:0a:29:33",
         Wish("net", mac="92:d0:c6:0a:29:33", aliases=("a",))),
        ("name=net", Wish("net")),
    ],
)  # fmt: skip
def test_argument_is_read(text: str, found: Wish) -> None:
    assert parse(text) == [found]
    assert Wish.read(json.loads(json.dumps(found._asdict()))) == found


def test_several_names_may_be_listed() -> None:
    assert parse("a,b") == [Wish("a"), Wish("b")]


@pytest.mark.parametrize(
    "text",
    [
        "", ":ip=10.0.0.1", "net:foo=1", "net:ip", "net:ip=", "net:ip=x",
        "net:mac=01:00:00:00:00:00",
        "net:alias=a b", "net:alias=-a", "net:alias=a..b", f"net:alias={'a' * 64}",
        "net:interface_name=lo", "net:interface_name=tap0", "net:interface_name=a/b",
        f"net:interface_name={'a' * 16}", "name=,ip=10.0.0.1",
    ],
)  # fmt: skip
def test_argument_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(RlError, match="invalid") as said:
        parse(text)
    assert "\n" not in str(said.value)


def test_no_network_and_no_interface_is_wished_twice() -> None:
    check_all([Wish("a"), Wish("b", interface="x")])
    with pytest.raises(RlError, match="network a is given twice"):
        check_all([Wish("a"), Wish("a", ip="10.0.0.1")])
    with pytest.raises(RlError, match="interface x is given twice"):
        check_all([Wish("a", interface="x"), Wish("b", interface="x")])
