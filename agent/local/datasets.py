"""Datasets over the local API."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from agent.datasets import Registration
from agent.local.room import Room
from housecall.v1 import site_pb2 as site
from housecall.v1 import site_pb2_grpc

WorkEvents = Iterator[site.WorkEvent]


class DatasetCalls(Room, site_pb2_grpc.SiteApiServicer):
    def ListLocalDatasets(
        self, request: site.ListLocalDatasetsRequest, context: grpc.ServicerContext
    ) -> site.ListLocalDatasetsResponse:
        found = [self.messages.dataset(each) for each in self.catalog.all()]
        return site.ListLocalDatasetsResponse(datasets=found)

    def GetLocalDataset(
        self, request: site.GetLocalDatasetRequest, context: grpc.ServicerContext
    ) -> site.GetLocalDatasetResponse:
        dataset = self.messages.dataset(self.catalog.get(request.id))
        return site.GetLocalDatasetResponse(dataset=dataset)

    def DraftDataset(
        self, request: site.DraftDatasetRequest, context: grpc.ServicerContext
    ) -> WorkEvents:
        asked = Registration(
            name=request.name,
            description=request.description,
            location=request.location,
            data_path=request.data_path,
            labels_path=request.labels_path,
            metadata_path=request.metadata_path,
            benchmark_id=request.benchmark_id,
            container_id=request.container_id,
            already_prepared=request.already_prepared,
        )
        yield from self.follow(self.datasets.draft_registration(asked, self.uid(context)), context)

    def PrepareDataset(
        self, request: site.PrepareDatasetRequest, context: grpc.ServicerContext
    ) -> WorkEvents:
        yield from self.follow(self.datasets.prepare(request.dataset_id), context)

    def StopPreparation(
        self, request: site.StopPreparationRequest, context: grpc.ServicerContext
    ) -> site.StopPreparationResponse:
        self.datasets.stop_preparation(request.dataset_id)
        return site.StopPreparationResponse()

    def CheckDataset(
        self, request: site.CheckDatasetRequest, context: grpc.ServicerContext
    ) -> WorkEvents:
        job = self.datasets.check(request.dataset_id, full=request.full)
        yield from self.follow(job, context)

    def DraftOperational(
        self, request: site.DraftOperationalRequest, context: grpc.ServicerContext
    ) -> WorkEvents:
        job = self.datasets.draft_operational(request.dataset_id, self.uid(context))
        yield from self.follow(job, context)

    def DraftAssociation(
        self, request: site.DraftAssociationRequest, context: grpc.ServicerContext
    ) -> WorkEvents:
        job = self.rooms.participation.draft_association(
            request.dataset_id, request.benchmark_id, self.uid(context)
        )
        yield from self.follow(job, context)

    def DraftWithdrawal(
        self, request: site.DraftWithdrawalRequest, context: grpc.ServicerContext
    ) -> WorkEvents:
        job = self.rooms.participation.draft_withdrawal(
            request.association_id, request.reason, self.uid(context)
        )
        yield from self.follow(job, context)
