"""Names that no setting has: refused, whether they stand in a file or in the environment.

A variable with a program's prefix is meant for that program. One that is ignored leaves a limit
or a path as it was, and nobody notices.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence

from pydantic_settings import BaseSettings

from housecall.errors import Kind, Refusal

LEAST_LIKENESS = 0.4
_SERVICE = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?")
"""What Kubernetes gives containers beside a service that is called as the program is."""


def require_known_variables(settings: type[BaseSettings], page: str, *others: str) -> None:
    """Refuses with SETTINGS_INVALID the variables that have the prefix of these settings, and are
    neither a setting nor one of `others`. Capitals do not count, as they do not for settings."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    known = {prefix + name.upper() for name in settings.model_fields}.union(others)
    wrong = [
        name
        for name in sorted(os.environ)
        if name.upper().startswith(prefix)
        and name.upper() not in known
        and not _SERVICE.fullmatch(name.upper(), len(prefix))
    ]
    if wrong:
        rests = [(name, name[len(prefix) :].lower()) for name in wrong]
        fields = settings.model_fields
        said = [f"variable {name}{_no(rest, fields, prefix)}" for name, rest in rests]
        raise _unknown(said, page)


def unknown_keys(settings: type[BaseSettings], names: Sequence[str], page: str) -> Refusal:
    """SETTINGS_INVALID for keys of a file."""
    return _unknown([f"setting {name}{_no(name, settings.model_fields)}" for name in names], page)


def _no(name: str, known: Iterable[str], prefix: str = "") -> str:
    """That there is none, and which is nearest."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=LEAST_LIKENESS)
    shown = [prefix + each.upper() if prefix else each for each in near]
    return ": there is no setting of that name" + "".join(f", the nearest is {s}" for s in shown)


def _unknown(said: list[str], page: str) -> Refusal:
    return Refusal(Kind.INVALID, "SETTINGS_INVALID", "; ".join([*said, f"see {page}"]))
