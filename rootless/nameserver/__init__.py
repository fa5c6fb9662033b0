"""The DNS server of user networks, `rl-dns`: containers by their names, all else by the host's."""
