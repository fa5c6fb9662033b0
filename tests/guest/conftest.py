"""What runs in the guest of scripts/guest is not collected outside of it, and the other way round.

The directories session, delegated and none are named as the values of its option --cgroups;
limited is for the first two. debian is named as the value of --kernel.
"""

from __future__ import annotations

import os

if "RL_GUEST_PREFIX" in os.environ:
    collect_ignore = ["test_guest.py"]
else:
    collect_ignore = ["session", "delegated", "limited", "none", "debian"]
