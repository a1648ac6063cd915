"""Things of the ledger pinned by the content that they have now."""

from __future__ import annotations

from cli.connect import End
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub


def container_pin(end: End, container_id: int) -> pb.Pin:
    request = registry_pb2.GetContainerRequest(id=container_id)
    container = end.call(RegistryStub(end.channel).GetContainer, request).container
    return pb.Pin(id=container_id, digest=container.statement.container_digest)


def model_pin(end: End, model_id: int) -> pb.Pin:
    """A model's digest is its container's."""
    request = registry_pb2.GetModelRequest(id=model_id)
    model = end.call(RegistryStub(end.channel).GetModel, request).model
    return pb.Pin(id=model_id, digest=model.statement.container.digest)
