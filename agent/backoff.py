"""How long to stay away after a stream ended: full jitter, and what is final, calm, soon, or
passes."""

from __future__ import annotations

import random
from collections.abc import Callable

from housecall.rpc import RENEWAL

BASE_S, CAP_S = 0.5, 60.0
GOOD_S = 60.0
"""A stream that held this long was a good one: the next wait is short again."""
FINAL_WAIT_S = 600.0
CALM_WAIT_S = 90.0
SOON_WAIT_S = 1.0

FINAL: dict[str, str] = {
    "LEDGER_REWRITTEN": "the history was changed: never trust this coordinator's answers again",
    "CHECKPOINT_INVALID": "the checkpoint is not signed by the key pinned at enrolment",
    "RECEIPT_INVALID": "it gives receipts that do not hold",
    "REVOKED": "this site was revoked",
    "WRONG_CA": "it is not certified by the CA pinned at enrolment",
    "CERTIFICATE_EXPIRED": f"a certificate ran out; where it is this site's own, {RENEWAL}",
    "UNAUTHENTICATED": (
        "the coordinator does not take this certificate: it does not know it, or one of the clocks "
        "is off"
    ),
    "NOT_ALLOWED": "this certificate may not open a site's stream",
}
"""Ends of a stream that another try does not mend by itself, each with its reason: tried again
slowly, since people may mend them. LEDGER_REWRITTEN is never tried again."""
CALM: dict[str, str] = {
    "SUPERSEDED": "another agent of this site took over: the newest wins",
    "SITE_ELSEWHERE": "another agent of this site is connected, and this one yields",
}
"""Ends that last as long as another agent of the site does: about a minute between tries."""
SOON: dict[str, str] = {"DRAINING": "the coordinator stops, as for an upgrade: another one answers"}
"""Announced ends: tried again at once, spread over a second."""
PASSES: dict[str, str] = {
    "CLOCK_SKEW": "by this machine's clock the coordinator's certificate is not valid yet"
}
"""What looks like a no and mends itself, as a clock does that is synchronised after a boot: tried
again as a connection that was lost."""
REASONS = FINAL | CALM | SOON | PASSES


class Backoff:
    """The waits of one link; `uniform` is `random.uniform` but for tests."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._tries = 0

    def after(self, code: str, lasted_s: float) -> float:
        """Seconds to wait after a stream that ended with `code`, "" for no reason given."""
        if code in FINAL:
            return self._uniform(FINAL_WAIT_S / 2, FINAL_WAIT_S)
        if code in CALM:
            return self._uniform(CALM_WAIT_S / 3, CALM_WAIT_S)
        if code in SOON and lasted_s >= SOON_WAIT_S:
            return self._uniform(0, SOON_WAIT_S)
        self._tries = 0 if lasted_s >= GOOD_S else self._tries + 1
        return self._uniform(0, min(CAP_S, BASE_S * 2**self._tries))
