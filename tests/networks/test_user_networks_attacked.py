"""Attacks of a container on what runs the user networks of its store."""

from __future__ import annotations

from tests.networks.test_user_networks import nets
from tests.support.runner import Rl
from tests.support.undefended import changed

__all__ = ["nets"]

# Whom the kernel lets follow the links of a process it lets trace it as well. The name server may
# begin only just before the container.
LOOK = """
until grep -qx rl-dns /proc/[0-9]*/comm 2>/dev/null; do sleep 0.05; done
for p in /proc/[0-9]*; do
    case $(cat $p/comm 2>/dev/null) in
        rl-holder|rl-dns) [ -n "$(readlink $p/exe)" ] && echo "reached $(cat $p/comm)";;
    esac
done
true
"""

# PID 1 in the holder's own user namespace, and not in one inside it.
BESIDE_THE_HOLDER = """
from rootless.kernel import nested, syscalls
fork = nested.fork
def beside(main, flags, *rest):
    return fork(main, flags & ~syscalls.CLONE_NEWUSER, *rest)
nested.fork = beside
nested._write_maps = lambda *_: None
"""


def test_holder_and_name_server_cannot_be_taken_over_by_a_container_that_sees_them(
    nets: Rl,
) -> None:
    def attack(rl: Rl) -> set[str]:
        seeing = ("--pid", "host", "--privileged", "--network", "blue")
        return set(rl("run", "--rm", *seeing, "alpine", "sh", "-c", LOOK).stdout.splitlines())

    assert attack(nets) == set()
    assert attack(changed(nets, BESIDE_THE_HOLDER)) == {"reached rl-holder", "reached rl-dns"}
