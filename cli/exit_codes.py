"""Exit codes of the CLI beyond those of refusals; docs/exit-codes.md has a row for each."""

from __future__ import annotations

from housecall.errors import EXIT_CODES

MODELS_FAILED = 10
DECLINED = 11
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    0: "done",
    **{code: kind.value for kind, code in EXIT_CODES.items()},
    MODELS_FAILED: "some models failed",
    DECLINED: "the question was answered with no",
    INTERRUPTED: "interrupted",
}
"""Every exit code and what it means, in a few words."""
