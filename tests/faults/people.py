"""What a site's own people do while everything breaks, over their agent's socket.

They bring datasets from raw data to a place in the benchmark, and answer reviews; each step is
tried until it is done, by looking first at how far it came.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress

import grpc

from housecall.errors import Refusal
from housecall.v1 import site_pb2
from tests.faults.committee import Committee
from tests.faults.sites import CALL_S, Site

DATASET_EVERY_S = 25.0
LOOK_S = 1.0
POLICY_CHANCE = 0.05


class SitePeople:
    """A site's own people: they bring datasets and answer reviews; one thread a site."""

    def __init__(
        self, site: Site, committee: Committee, choice: random.Random, stop: threading.Event
    ) -> None:
        self._site, self._committee, self._choice, self._stop = site, committee, choice, stop
        self._brought = 0
        self.released: set[str] = set()
        self.over = committee.over
        self.idle = True
        self.thread = threading.Thread(target=self._work, name=f"people-{site.name}", daemon=True)

    def bring(self) -> None:
        """A dataset from raw data to a place in the benchmark, whatever it takes."""
        self._brought += 1
        raw = self._site.write_data(self._brought, self._choice)
        name = f"data-{self._brought}"
        while not self._stop.is_set():
            with suppress(Refusal, grpc.RpcError):
                if self._advance(name, str(raw)):
                    return
            self._stop.wait(0.5)

    def _work(self) -> None:
        """Until it is over, and then until nothing waits for a person any more."""
        next_dataset = time.monotonic() + DATASET_EVERY_S * self._choice.random()
        while not self._stop.wait(LOOK_S):
            self.idle = False
            if not self.over.is_set():
                if self._choice.random() < POLICY_CHANCE:
                    self._site.allow(release=self._choice.random() < 0.5)
                if time.monotonic() > next_dataset:
                    self.bring()
                    next_dataset = time.monotonic() + DATASET_EVERY_S * self._choice.uniform(
                        0.5, 1.5
                    )
            self.idle = not self._answer_reviews()

    def _answer_reviews(self) -> int:
        """Yes to everything that waits for a person. How much that was."""
        site = self._site
        with suppress(Refusal, grpc.RpcError):
            waiting = site.reviews()
            for review in waiting:
                with suppress(Refusal, grpc.RpcError), site.api() as api:
                    request = site_pb2.ApproveReviewRequest(id=review.id, digest=review.digest)
                    answer = api.ApproveReview(request, timeout=CALL_S)
                    if answer.HasField("sent"):
                        self.released.add(answer.sent.envelope_digest)
            return len(waiting)
        return 1

    def _advance(self, name: str, raw: str) -> bool:
        """One step further; True when it takes part."""
        site = self._site
        known = [each for each in site.datasets() if each.name == name]
        if not known:
            request = site_pb2.DraftDatasetRequest(
                name=name,
                description="of the harness",
                location=site.name,
                data_path=f"{raw}/data",
                labels_path=f"{raw}/labels",
                benchmark_id=1,
            )
            self._release("DraftDataset", request)
            return False
        dataset = known[0]
        if dataset.state == site_pb2.LOCAL_DATASET_STATE_OPERATIONAL:
            return self._associate(dataset.id)
        if dataset.state == site_pb2.LOCAL_DATASET_STATE_PREPARED:
            self._release(
                "DraftOperational", site_pb2.DraftOperationalRequest(dataset_id=dataset.id)
            )
        else:
            self._follow("PrepareDataset", site_pb2.PrepareDatasetRequest(dataset_id=dataset.id))
        return False

    def _associate(self, dataset_id: str) -> bool:
        request = site_pb2.DraftAssociationRequest(dataset_id=dataset_id, benchmark_id=1)
        try:
            self._release("DraftAssociation", request)
        except Refusal as refusal:
            if refusal.code != "ASSOCIATION_EXISTS":
                raise
            self._committee.datasets.append(dataset_id)
            return True
        return False

    def _follow(self, method: str, request: object) -> list[site_pb2.WorkEvent]:
        with self._site.api() as api:
            return list(getattr(api, method)(request, timeout=60))

    def _release(self, method: str, request: object) -> None:
        drafts = [e.draft for e in self._follow(method, request) if e.HasField("draft")]
        for draft in drafts:
            with self._site.api() as api:
                answer = api.Release(site_pb2.ReleaseRequest(digest=draft.digest), timeout=30)
            self.released |= {sent.envelope_digest for sent in answer.sent}
