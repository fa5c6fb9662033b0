"""`python -m rootless`: the command `rl` where it is not on the PATH."""

from rootless.main import main

main()
