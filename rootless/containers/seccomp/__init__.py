"""Which system calls a container may make: profiles, the default among them, and their filters."""
