"""How long to stay away after a stream ended: full jitter, and what is final."""

from __future__ import annotations

import random
from collections.abc import Callable

BASE_S, CAP_S = 0.5, 60.0
GOOD_S = 60.0
"""A stream that held this long was a good one: the next wait is short again."""
FINAL_WAIT_S = 600.0

FINAL: dict[str, str] = {
    "LEDGER_REWRITTEN": "the history was changed: never trust this coordinator's answers again",
    "CHECKPOINT_INVALID": "the checkpoint is not signed by the key pinned at enrolment",
    "RECEIPT_INVALID": "it gives receipts that do not hold",
    "SUPERSEDED": "another agent of this site connected: the newest wins",
    "REVOKED": "this site was revoked",
    "WRONG_CA": "it is not certified by the CA pinned at enrolment",
    "CERTIFICATE_EXPIRED": "this site must be enrolled anew",
    "UNAUTHENTICATED": "the coordinator does not know this certificate",
    "NOT_ALLOWED": "this certificate may not open a site's stream",
}
"""Ends of a stream that another try does not mend by itself, each with its reason: tried again
slowly, since people may mend them. LEDGER_REWRITTEN is never tried again."""


class Backoff:
    """The waits of one link; `uniform` is `random.uniform` but for tests."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._tries = 0

    def after(self, code: str, lasted_s: float) -> float:
        """Seconds to wait after a stream that ended with `code`, "" for no reason given."""
        if code in FINAL:
            return self._uniform(FINAL_WAIT_S / 2, FINAL_WAIT_S)
        self._tries = 0 if lasted_s >= GOOD_S else self._tries + 1
        return self._uniform(0, min(CAP_S, BASE_S * 2**self._tries))
