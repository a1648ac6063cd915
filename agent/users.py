"""Users of this machine by their names."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """As `/etc/passwd` has it; the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
