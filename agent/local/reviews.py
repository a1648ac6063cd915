"""Status, releases and reviews over the local API."""

from __future__ import annotations

import shutil
from importlib.metadata import version

import grpc

from agent.local.messages import sent, timestamp
from agent.local.room import Room
from agent.reviews import Shown
from housecall.errors import Refusal
from housecall.v1 import site_pb2 as site
from housecall.v1 import site_pb2_grpc


class ReviewCalls(Room, site_pb2_grpc.SiteApiServicer):
    def GetStatus(
        self, request: site.GetStatusRequest, context: grpc.ServicerContext
    ) -> site.GetStatusResponse:
        self.uid(context)
        identity, state = self.rooms.uplink.identity, self.rooms.link_state()
        running, waiting = self.rooms.worker.counts()
        policy = self.rooms.policy.current()
        return site.GetStatusResponse(
            site=identity.name,
            agent_version=version("housecall"),
            connected=state.connected,
            connected_at=timestamp(state.connected_at),
            link_problem="; ".join(filter(None, (state.problem, self.rooms.policy.problem))),
            outbox=len(self.journal.waiting()),
            running=running,
            waiting=waiting + len(self.journal.reviews()),
            slots=self.rooms.worker.slots,
            environment=self.rooms.environment(),
            certificate_expires_at=timestamp(identity.certificate.not_valid_after_utc.timestamp()),
            policy_digest=policy.digest if self.rooms.settings.policy_file else "",
            coordinator=identity.address,
            verifier_key=identity.verifier_key,
            disk_free_bytes=shutil.disk_usage(self.rooms.settings.state_dir).free,
        )

    def Release(
        self, request: site.ReleaseRequest, context: grpc.ServicerContext
    ) -> site.ReleaseResponse:
        entries = self.rooms.releases.release(request.digest, self.uid(context))
        return site.ReleaseResponse(sent=[sent(entry) for entry in entries])

    def ListReviews(
        self, request: site.ListReviewsRequest, context: grpc.ServicerContext
    ) -> site.ListReviewsResponse:
        found = self.rooms.reviews.all(self.uid(context))
        return site.ListReviewsResponse(reviews=[self._message(each) for each in found])

    def GetReview(
        self, request: site.GetReviewRequest, context: grpc.ServicerContext
    ) -> site.GetReviewResponse:
        shown = self.rooms.reviews.get(request.id, self.uid(context))
        return site.GetReviewResponse(review=self._message(shown))

    def ApproveReview(
        self, request: site.ApproveReviewRequest, context: grpc.ServicerContext
    ) -> site.ApproveReviewResponse:
        entry = self.rooms.reviews.approve(request.id, request.digest, self.uid(context))
        return site.ApproveReviewResponse(sent=sent(entry) if entry else None)

    def RefuseReview(
        self, request: site.RefuseReviewRequest, context: grpc.ServicerContext
    ) -> site.RefuseReviewResponse:
        entry = self.rooms.reviews.refuse(request.id, self.uid(context))
        return site.RefuseReviewResponse(sent=sent(entry) if entry else None)

    def _message(self, shown: Shown) -> site.Review:
        """With names, where they are known."""
        execution = shown.execution
        try:
            benchmark = self.rooms.registry.benchmark(execution.benchmark_id).statement.name
            model = self.rooms.registry.model(execution.model_id)
        except Refusal:
            return self.messages.review(shown, "", "", "")
        return self.messages.review(shown, benchmark, model.name, model.owner)
