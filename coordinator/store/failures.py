"""What a failing database means, as a refusal that says what to do."""

from __future__ import annotations

from sqlalchemy import exc

from housecall.errors import Kind, Refusal

_LOST = ("08", "57P", "53300", "25P03", "25006", "28", "42501", "3D000")
"""SQLSTATEs (by prefix): connection failure, server going down or starting, too many connections,
thrown out for idling, a standby that only reads, not let in, not allowed to, no
such database."""
_SLOW = ("57014", "55P03", "40")
"""Statement or lock timeout, deadlock or serialisation failure."""
_FULL = ("53100",)
_UNSTORABLE = ("54000",)
"""A text that no index takes."""

_SQLITE = (
    ("is full", "STORE_FULL"),
    ("is locked", "STORE_SLOW"),
    ("malformed", "STORE_UNREADABLE"),
    ("not a database", "STORE_UNREADABLE"),
    ("unable to open", "STORE_UNREADABLE"),
    ("readonly", "STORE_UNREADABLE"),
    ("disk I/O error", "STORE_UNREADABLE"),
)


def code_of(error: BaseException) -> str:
    """The refusal's code, or nothing where the failure is a defect of this program."""
    if isinstance(error, exc.TimeoutError):
        return "STORE_SLOW"
    if isinstance(error, exc.DataError | OverflowError):
        return "VALUE_UNSTORABLE"
    if not isinstance(error, exc.DBAPIError):
        return ""
    state = getattr(error.orig, "sqlstate", None)
    codes = ((_SLOW, "STORE_SLOW"), (_FULL, "STORE_FULL"), (_UNSTORABLE, "VALUE_UNSTORABLE"))
    for prefixes, code in codes:
        if state and state.startswith(prefixes):
            return code
    if error.connection_invalidated or (state and state.startswith(_LOST)):
        return "STORE_UNREACHABLE"
    if hasattr(error.orig, "sqlstate"):  # psycopg has none for a connection that it cannot make
        never = state is None and isinstance(error, exc.OperationalError)
        return "STORE_UNREACHABLE" if never else ""
    return next((code for mark, code in _SQLITE if mark in str(error.orig)), "")


def refusal_for(error: BaseException, place: str) -> Refusal | None:
    """The refusal for a failure of the store at `place`; None for a defect."""
    why = str(getattr(error, "orig", error)).strip().partition("\n")[0]
    match code_of(error):
        case "STORE_UNREACHABLE":
            return Refusal(
                Kind.UNAVAILABLE,
                "STORE_UNREACHABLE",
                f"cannot reach the store at {place} ({why}): try again, the same statement counts "
                "once; the operator checks that it runs, and host, port, database, user and "
                "password in database_url",
            )
        case "STORE_SLOW":
            return Refusal(
                Kind.UNAVAILABLE,
                "STORE_SLOW",
                f"the store did not answer in time ({why}): try again, the same statement counts "
                "once",
            )
        case "STORE_FULL":
            return Refusal(
                Kind.EXHAUSTED,
                "STORE_FULL",
                "the coordinator's disk is full: nothing was accepted. Keep the statement and send "
                "it again when the operator has made room",
            )
        case "STORE_UNREADABLE":
            return Refusal(
                Kind.UNAVAILABLE,
                "STORE_UNREADABLE",
                f"cannot use the store at {place} ({why}): the operator checks its disk and "
                "rights, or restores a backup",
            )
        case "VALUE_UNSTORABLE":
            return Refusal(
                Kind.INVALID,
                "VALUE_UNSTORABLE",
                "expected texts without NUL characters, names and ids of at most 200 characters, "
                f"and numbers below 2^63, got others ({why[:200]}); where a backup holds them, "
                "restore it into SQLite",
            )
    return None
