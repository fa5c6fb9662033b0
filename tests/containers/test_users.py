"""Docker's rules for --user, on passwd and group files as images have them."""

from __future__ import annotations

import pytest

from rootless.containers.users import User, resolve
from rootless.errors import RlError

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
broken
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
huge:x:99999999999:0::/:/bin/sh
odd:x:one:two::/:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
twin:x:33:44::/twin:/bin/sh
homeless:x:70:70:::/bin/sh
"""
GROUP = """\
root:x:0:
daemon:x:1:
adm:x:4:syslog,www-data
www-data:x:33:www-data
tape:x:26:www-data,other
broken
huge:x:99999999999:www-data
"""


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("", User(0, 0, (), "/root")),
        ("root", User(0, 0, (), "/root")),
        ("0", User(0, 0, (), "/root")),
        ("www-data", User(33, 33, (4, 26), "/var/www")),
        ("33", User(33, 33, (4, 26), "/var/www")),
        ("twin", User(33, 44, (), "/twin")),
        ("www-data:tape", User(33, 26, (), "/var/www")),
        ("www-data:7", User(33, 7, (), "/var/www")),
        ("1234", User(1234, 0, (), "/")),
        ("1234:5678", User(1234, 5678, (), "/")),
        ("1234:adm", User(1234, 4, (), "/")),
        ("homeless", User(70, 70, (), "/")),
    ],
)
def test_user_is_found_as_docker_finds_it(wanted: str, user: User) -> None:
    assert resolve(wanted, PASSWD, GROUP) == user


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nobody-here", "unable to find user nobody-here"),
        ("root:no-group", "unable to find group no-group"),
        ("99999999999", "too large"),
        ("4294967295", "too large"),
        ("0:99999999999", "too large"),
        ("huge", "unable to find user huge"),
        ("odd", "unable to find user odd"),
    ],
)
def test_unknown_user_is_an_error_that_names_it(wanted: str, message: str) -> None:
    with pytest.raises(RlError, match=message):
        resolve(wanted, PASSWD, GROUP)


def test_image_without_passwd_runs_as_numbers_only() -> None:
    assert resolve("", "", "") == User(0, 0, (), "/")
    with pytest.raises(RlError, match="unable to find user www-data"):
        resolve("www-data", "", "")
