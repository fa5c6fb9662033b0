"""What the tests of all parts share: images, a registry, the command, a look for leaks."""
