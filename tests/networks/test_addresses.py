"""Which addresses containers get on a user network."""

from __future__ import annotations

import pytest

from rootless.errors import RlError
from rootless.networks.addresses import check, choose
from rootless.networks.definition import Pool
from rootless.networks.user import mac_of
from rootless.networks.wish import Wish
from tests.networks.test_definition import definition

NET = definition(pools=(Pool("10.89.0.0/29", "10.89.0.1"),))
BOTH = definition(pools=(Pool("10.89.0.0/24", "10.89.0.1"), Pool("fd00::/64", "fd00::1")))


def test_first_free_address_is_given_but_not_those_of_the_network() -> None:
    assert choose(NET, Wish("net"), (), (), ()) == ("10.89.0.2/29",)
    taken = {"10.89.0.2", "10.89.0.3"}
    assert choose(NET, Wish("net"), (), taken, ()) == ("10.89.0.4/29",)
    assert choose(BOTH, Wish("net"), (), (), ()) == ("10.89.0.2/24", "fd00::2/64")


def test_gateway_in_the_middle_is_left_out() -> None:
    net = definition(pools=(Pool("10.89.0.0/29", "10.89.0.2"),))
    taken = {"10.89.0.1"}
    assert choose(net, Wish("net"), (), taken, ()) == ("10.89.0.3/29",)


def test_full_network_says_so() -> None:
    taken = {f"10.89.0.{number}" for number in range(2, 7)}
    with pytest.raises(RlError, match="no free address is left on the network net"):
        choose(NET, Wish("net"), (), taken, ())


def test_range_bounds_what_is_given_but_not_what_is_asked_for() -> None:
    net = definition(pools=(Pool("10.89.0.0/24", "10.89.0.1", "10.89.0.64/30"),))
    assert choose(net, Wish("net"), (), (), ()) == ("10.89.0.64/24",)
    taken = {f"10.89.0.{number}" for number in range(64, 68)}
    with pytest.raises(RlError, match=r"10\.89\.0\.64/30"):
        choose(net, Wish("net"), (), taken, ())
    assert choose(net, Wish("net", ip="10.89.0.9"), (), taken, ()) == ("10.89.0.9/24",)


def test_address_of_the_last_time_is_given_again_while_it_is_free() -> None:
    before = ("10.89.0.5/29",)
    assert choose(NET, Wish("net"), before, (), ()) == before
    assert choose(NET, Wish("net"), before, {"10.89.0.5"}, ()) == ("10.89.0.2/29",)
    # One of another subnet that the network had before.
    assert choose(NET, Wish("net"), ("10.7.0.5/29",), (), ()) == ("10.89.0.2/29",)
    assert choose(NET, Wish("net"), ("10.89.0.7/29",), (), ()) == ("10.89.0.2/29",)


def test_address_that_another_has_asked_for_is_given_last() -> None:
    wanted = {"10.89.0.2", "10.89.0.3"}
    assert choose(NET, Wish("net"), (), (), wanted) == ("10.89.0.4/29",)
    taken = {"10.89.0.4", "10.89.0.5", "10.89.0.6"}
    assert choose(NET, Wish("net"), (), taken, wanted) == ("10.89.0.2/29",)


def test_address_asked_for_is_given_or_refused() -> None:
    wish = Wish("net", ip="10.89.0.6")
    assert choose(NET, wish, ("10.89.0.2/29",), (), ()) == ("10.89.0.6/29",)
    with pytest.raises(RlError, match=r"10\.89\.0\.6 is already in use on the network net"):
        choose(NET, wish, (), {"10.89.0.6"}, ())


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish("net", ip="10.3.0.1"), "not in the subnet"),
        (Wish("net", ip6="fd00::9"), "not in the subnet"),
        (Wish("net", ip="10.89.0.1"), "network's own"),
        (Wish("net", ip="10.89.0.0"), "network's own"),
        (Wish("net", ip="10.89.0.7"), "network's own"),
    ],
)
def test_address_that_no_container_can_have_is_refused(wish: Wish, said: str) -> None:
    with pytest.raises(RlError, match=said):
        check(NET, wish)


def test_mac_address_follows_from_the_address_and_can_be_one() -> None:
    assert mac_of("10.89.0.2/24") == mac_of("10.89.0.2") == "02:42:0a:59:00:02"
    six = mac_of("fd00::2")
    assert six.startswith("02:42:")
    assert six != mac_of("fd00::3")
