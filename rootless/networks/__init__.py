"""The network of a container: its interfaces and the files that name hosts."""
