"""Status over the local API: how the agent, its link, its engine and its work stand."""

from __future__ import annotations

import shutil
import time
from importlib.metadata import version

import grpc

from agent.linkstate import LinkState
from agent.local.messages import timestamp
from agent.local.room import Room
from agent.local.work import gpus, work
from housecall.v1 import site_pb2 as site
from housecall.v1 import site_pb2_grpc
from housecall.v1 import statements_pb2 as pb


class StatusCalls(Room, site_pb2_grpc.SiteApiServicer):
    def GetStatus(
        self, request: site.GetStatusRequest, context: grpc.ServicerContext
    ) -> site.GetStatusResponse:
        self.uid(context)
        rooms, state = self.rooms, self.rooms.link_state()
        identity, environment = rooms.uplink.identity, rooms.environment()
        running, waiting = rooms.worker.counts()
        policy, unsent = rooms.policy.current(), self.journal.waiting()
        return site.GetStatusResponse(
            site=identity.name,
            agent_version=version("housecall"),
            connected=state.connected,
            connected_at=timestamp(state.connected_at),
            link_since=timestamp(_since(state)),
            link_ended=state.ended,
            next_try_at=timestamp(0.0 if state.connected or state.ended else state.next_try_at),
            clock_skew_seconds=rooms.uplink.skew_s,
            link_problem="; ".join(filter(None, (state.problem, rooms.policy.problem))),
            outbox=len(unsent),
            outbox_since=timestamp(min((entry.since for entry in unsent), default=0.0)),
            running=running,
            waiting=waiting + len(self.journal.reviews()),
            slots=rooms.worker.slots,
            environment=environment,
            engine_problem=_engine_problem(environment),
            gpus=gpus(rooms),
            work=work(rooms, environment),
            certificate_expires_at=timestamp(identity.certificate.not_valid_after_utc.timestamp()),
            policy_digest=policy.digest if rooms.settings.policy_file else "",
            coordinator=identity.address,
            verifier_key=identity.verifier_key,
            disk_free_bytes=shutil.disk_usage(rooms.settings.state_dir).free,
            disk_reserve_bytes=rooms.settings.disk_reserve_bytes,
        )


def _since(state: LinkState) -> float:
    return state.connected_at if state.connected else time.time() - state.down_s


def _engine_problem(environment: pb.EnvironmentFacts) -> str:
    if environment.engine:
        return ""
    return "it does not answer: `housecall-agent doctor --check engine` says why"
