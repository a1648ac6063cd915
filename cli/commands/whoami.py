"""`housecall whoami`: the caller as the coordinator knows it."""

from __future__ import annotations

import click

from cli import connect
from cli.command import example, output_option
from cli.messages import plain
from cli.output import show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub


@click.command(epilog=example("housecall whoami"))
@output_option()
@pass_settings
def command(settings: Settings) -> None:
    """Who you are to the coordinator: name, role, and how long the certificate lasts."""
    with connect.reader(settings) as end:
        request = registry_pb2.GetCallerRequest()
        caller = end.call(RegistryStub(end.channel).GetCaller, request)
    show_one(settings, {**plain(caller), "answered_by": end.peer})
