"""The kernel's interfaces, each behind a few typed functions.

Nothing above this package calls libc or knows a system call's number;
nothing in it knows of images or containers.
"""
