"""What the parts of the servicer share: the rooms behind them, who calls, and following work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from agent.catalog import Catalog
from agent.consent import PolicyFile
from agent.containers import Containers
from agent.datasets import Datasets
from agent.execution import Executor
from agent.gpus import GpuPool
from agent.identity import Uplink
from agent.journal import Journal
from agent.linkstate import LinkState
from agent.local.messages import Messages
from agent.local.relay import uid_of
from agent.orders import Orders
from agent.participation import Participation
from agent.registry import Registry
from agent.release import Releases
from agent.results import Results
from agent.reviews import Reviews
from agent.runs import Runs
from agent.settings import Settings
from agent.worker import Job, Worker
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb


@dataclass(frozen=True)
class Rooms:
    """Everything that the local API calls."""

    settings: Settings
    uplink: Uplink
    journal: Journal
    catalog: Catalog
    registry: Registry
    containers: Containers
    executor: Executor
    worker: Worker
    runs: Runs
    results: Results
    releases: Releases
    datasets: Datasets
    participation: Participation
    orders: Orders
    reviews: Reviews
    policy: PolicyFile
    messages: Messages
    link_state: Callable[[], LinkState]
    environment: Callable[[], pb.EnvironmentFacts]
    gpus: GpuPool


class Room:
    """Base of the servicer's parts."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.messages = rooms.messages
        self.catalog, self.journal = rooms.catalog, rooms.journal
        self.datasets, self.runs, self.results = rooms.datasets, rooms.runs, rooms.results

    def uid(self, context: grpc.ServicerContext) -> int:
        """Of the caller, by the kernel's word."""
        return uid_of(context.peer())

    def follow(self, job: Job, context: grpc.ServicerContext) -> Iterator[site_pb2.WorkEvent]:
        """The job's events until it ends or the caller goes away; then its refusal, if any."""
        self.uid(context)
        for event in job.feed.follow(context.is_active):
            yield self.messages.event(event)
        if context.is_active():
            job.outcome()
