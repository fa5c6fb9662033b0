"""How much of something the clients have: bounded for each, for each network, and in all.

Pure. So that neither one client nor all of a network together leave nothing to others. A client is
its network and its address there. Called by ``listening`` and ``forwarding``.
"""

from __future__ import annotations

from collections import Counter

Place = tuple[str, str]


class Shares:
    """What is taken."""

    def __init__(self, of_client: int, of_network: int, in_all: int) -> None:
        self._bounds = of_client, of_network, in_all
        self._clients: Counter[Place] = Counter()
        self._networks: Counter[str] = Counter()

    def full(self, client: Place) -> bool:
        """Tell whether a client is to get no more."""
        taken = self._clients[client], self._networks[client[0]], self._networks.total()
        return any(one >= most for one, most in zip(taken, self._bounds, strict=True))

    def take(self, client: Place) -> None:
        """Give a client one."""
        self._clients[client] += 1
        self._networks[client[0]] += 1

    def give_back(self, client: Place) -> None:
        """Have one of a client's again."""
        self._clients[client] -= 1
        self._networks[client[0]] -= 1
        if not self._clients[client]:
            del self._clients[client]
        if not self._networks[client[0]]:
            del self._networks[client[0]]
