"""Whether the agent lives: one round through its own doors, for systemd's watchdog.

 1. The journal takes a durable write: its lock is free, and the disk answers.
 2. The local API answers a call on the public socket, as it would a person's: relay, gRPC, pool.
 3. Every slot's thread is there.
 4. The link's thread does not hang in what it does. That the coordinator answers is not asked.

The container engine is not asked either: it may be away, or slow, and a restart of the agent does
not mend it.
"""

from __future__ import annotations

import time

import grpc

from agent.server import Agent
from housecall.errors import Kind, Refusal
from housecall.rpc import refusals
from housecall.v1 import site_pb2, site_pb2_grpc
from housecall.watchdog import Stuck

LINK_LIMIT_S = 600.0
"""The longest that one message may keep the link busy: a Welcome may bring thousands of orders."""
CALL_LIMIT_S = 30.0
NO_EXECUTION = site_pb2.GetLocalExecutionRequest(id=0)


class Pulse:
    """Probes an agent that serves; `close` ends its connection."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._channel = grpc.insecure_channel(
            f"unix:{agent.settings.socket}", [("grpc.use_local_subchannel_pool", 1)]
        )

    def close(self) -> None:
        self._channel.close()

    def check(self) -> None:
        """Returns, raises Stuck, or hangs. Raises Refusal where a door answers with a no."""
        agent = self._agent
        if lost := agent.worker.lost_slots():  # 3
            raise Stuck(f"threads ended: {', '.join(lost)}")
        since = agent.link.state.busy_since
        if since is not None and time.monotonic() - since > LINK_LIMIT_S:  # 4
            raise Stuck(f"the link has been busy for {time.monotonic() - since:.0f} s")
        agent.journal.set_fact("pulse", str(agent.journal.now()))  # 1
        self._call()  # 2

    def _call(self) -> None:
        """What is not there is asked for: the refusal shows that the call got through."""
        try:
            with refusals("the agent's own socket"):
                site_pb2_grpc.SiteApiStub(self._channel).GetLocalExecution(
                    NO_EXECUTION, timeout=CALL_LIMIT_S
                )
        except Refusal as refusal:
            if refusal.kind is Kind.UNAVAILABLE:
                raise Stuck(f"the local API does not answer: {refusal}") from None
            if refusal.code != "EXECUTION_NOT_FOUND":
                raise
