"""Containers: their state on disk, what they are made of, and the processes that serve them."""
