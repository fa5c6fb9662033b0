"""Whether a container that ended is started again, and when: Docker's --restart.

Pure. Read by the supervisor at each end, and by the command line for its errors.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from rootless.errors import RlError

_NAMES: Final = ("no", "on-failure", "always", "unless-stopped")
_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 60.0
# A run of this length counts as a success, after which waiting begins anew.
_STABLE_SECONDS: Final = 10.0


class Policy(NamedTuple):
    """When to restart; ``limit`` 0 is no limit."""

    name: str
    limit: int = 0

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read ``no``, ``always``, ``unless-stopped``, ``on-failure`` or ``on-failure:N``."""
        name, given, count = text.partition(":")
        if name not in _NAMES or (given and (name != "on-failure" or not count.isdecimal())):
            raise RlError(
                f"invalid restart policy {text!r}: there are no, on-failure[:N], always and "
                "unless-stopped"
            )
        return cls(name, int(count or 0))

    def again(self, exit_code: int, restarts: int) -> bool:
        """Tell whether a container that ended so, after so many restarts, is to be restarted."""
        if self.name == "on-failure":
            return exit_code != 0 and (self.limit == 0 or restarts < self.limit)
        return self.name in ("always", "unless-stopped")

    def on_boot(self, *, stopped: bool) -> bool:
        """Tell whether it is to run again after a reboot; ``stopped`` when somebody wanted that."""
        return self.name == "always" or (self.name == "unless-stopped" and not stopped)


def delay(previous: float, ran: float) -> float:
    """Return the seconds to wait, after those waited before and those that the container ran."""
    if previous == 0 or ran >= _STABLE_SECONDS:
        return _FIRST_SECONDS
    return min(previous * 2, _LONGEST_SECONDS)
