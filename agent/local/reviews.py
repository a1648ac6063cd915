"""Releases and reviews over the local API."""

from __future__ import annotations

import grpc

from agent.local.messages import sent
from agent.local.room import Room
from agent.reviews import Shown
from housecall.errors import Refusal
from housecall.v1 import site_pb2 as site
from housecall.v1 import site_pb2_grpc


class ReviewCalls(Room, site_pb2_grpc.SiteApiServicer):
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
