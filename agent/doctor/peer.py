"""Checks of the coordinator itself: does it serve, does it know this site, do the clocks agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.doctor.finding import Verdict, fail, ok, warn
from agent.doctor.scene import Scene
from housecall.errors import Kind
from housecall.v1 import registry_pb2, registry_pb2_grpc
from housecall.v1 import statements_pb2 as pb

CALL_SECONDS = 10.0
_SERVING = health_pb2.HealthCheckResponse.SERVING


def coordinator(scene: Scene) -> Verdict:
    own = scene.identity
    with own.connect() as channel, own.refusals():
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its stubs lack types
        health = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
        if health.status != _SERVING:
            word = health_pb2.HealthCheckResponse.ServingStatus.Name(health.status)
            what = f"the coordinator answers {word}"
            return fail(Kind.UNAVAILABLE, what, "try again, or ask the operator")
        scene.asked_at = datetime.now(UTC)
        registry = registry_pb2_grpc.RegistryStub(channel)
        scene.caller = registry.GetCaller(registry_pb2.GetCallerRequest(), timeout=CALL_SECONDS)
        scene.answered_at = datetime.now(UTC)
    found = scene.caller
    if found.role != pb.ROLE_SITE or found.name != own.name:
        what = f"the coordinator knows this identity as {found.name}, {pb.Role.Name(found.role)}"
        return fail(Kind.NOT_ALLOWED, what, "enrol with a join token for a site")
    mine, its = version("housecall"), found.coordinator_version or "an older version"
    if mine != its:
        what = f"it knows this site; it is {its}, this is {mine}"
        return warn(what, "update the older one when it suits")
    return ok(f"{its} serves, and knows this site")


def clock(scene: Scene) -> Verdict:
    """This machine's clock against the coordinator's, bounded by how long the answer took."""
    found = scene.caller
    if found is None or not found.HasField("coordinator_time"):
        return warn("the coordinator does not tell its time", "update the coordinator")
    its, most = found.coordinator_time.ToDatetime(UTC), scene.settings.max_clock_skew_s
    middle = scene.asked_at + (scene.answered_at - scene.asked_at) / 2
    skew = (middle - its) / timedelta(seconds=1)
    word = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the coordinator's"
    if abs(skew) > most:
        what = f"this machine's clock is {word}; {most:g} s are allowed"
        return fail(Kind.UNAUTHENTICATED, what, "set this machine's clock (NTP)")
    return ok(f"this machine's clock is {word}")
