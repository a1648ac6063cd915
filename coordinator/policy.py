"""Who may call what: one row a method. Entitlement to a statement is the rules' business.

A method that has no row cannot be called; a test compares the rows with the protos.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.caller import CallerRole
from housecall.errors import Kind, Refusal

_EVERYONE = frozenset({CallerRole.SITE, CallerRole.PERSON, CallerRole.OPERATOR})
_PEOPLE = frozenset({CallerRole.PERSON, CallerRole.OPERATOR})
_OPERATORS = frozenset({CallerRole.OPERATOR})
_SITES = frozenset({CallerRole.SITE})
_JOINERS = frozenset({CallerRole.JOINER})

METHODS: Mapping[str, frozenset[CallerRole]] = {
    "/housecall.v1.Authority/IssueToken": _OPERATORS,
    "/housecall.v1.Authority/ListTokens": _OPERATORS,
    "/housecall.v1.Authority/Enrol": _JOINERS,
    "/housecall.v1.Authority/Renew": _EVERYONE,
    "/housecall.v1.Ledger/Append": _EVERYONE,
    "/housecall.v1.Ledger/GetCheckpoint": _EVERYONE,
    "/housecall.v1.Ledger/GetBundle": _EVERYONE,
    "/housecall.v1.Ledger/GetConsistencyProof": _EVERYONE,
    "/housecall.v1.Ledger/ListEntries": _EVERYONE,
    "/housecall.v1.Fleet/Connect": _SITES,
    "/housecall.v1.Registry/GetCaller": _EVERYONE,
    "/housecall.v1.Registry/ListContainers": _EVERYONE,
    "/housecall.v1.Registry/GetContainer": _EVERYONE,
    "/housecall.v1.Registry/ListBenchmarks": _EVERYONE,
    "/housecall.v1.Registry/GetBenchmark": _EVERYONE,
    "/housecall.v1.Registry/ListModels": _EVERYONE,
    "/housecall.v1.Registry/GetModel": _EVERYONE,
    "/housecall.v1.Registry/ListDatasets": _EVERYONE,
    "/housecall.v1.Registry/GetDataset": _EVERYONE,
    "/housecall.v1.Registry/ListAssociations": _EVERYONE,
    "/housecall.v1.Registry/GetAssociation": _EVERYONE,
    "/housecall.v1.Registry/ListResults": _EVERYONE,
    "/housecall.v1.Registry/GetResult": _EVERYONE,
    "/housecall.v1.Registry/ListExecutions": _EVERYONE,
    "/housecall.v1.Registry/GetExecution": _EVERYONE,
    "/housecall.v1.Registry/ListSites": _EVERYONE,
    "/housecall.v1.Registry/WatchBenchmark": _PEOPLE,
    "/housecall.v1.Registry/GetOverview": _OPERATORS,
    "/grpc.health.v1.Health/Check": _EVERYONE,
    "/grpc.health.v1.Health/Watch": _EVERYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _EVERYONE,
}


def check_method(method: str, role: CallerRole) -> None:
    """Deny is the default."""
    allowed = METHODS.get(method, frozenset())
    if role not in allowed:
        wanted = ", ".join(sorted(r.value for r in allowed)) or "nobody"
        raise Refusal(
            Kind.NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            f"{method} is for {wanted}; the caller is a {role.value}",
        )
