"""`housecall site`: this site's agent, and the sites of the fleet."""

from __future__ import annotations

import click

from cli import connect
from cli.command import example, output_option
from cli.messages import plain
from cli.output import Column, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub
from housecall.v1.site_pb2_grpc import SiteApiStub

COLUMNS: list[Column] = [
    ("site", "name"),
    ("connected", "connected"),
    ("heard", "heard_at"),
    ("agent", "agent_version"),
    ("gpus", "gpus"),
    ("running", "running"),
    ("waiting", "waiting"),
    ("clock skew s", "clock_skew_seconds"),
]


@click.group()
def command() -> None:
    """This site's agent, and the sites of the fleet."""


@command.command(
    short_help="Show how this site's agent is.", epilog=example("housecall site status")
)
@output_option()
@pass_settings
def status(settings: Settings) -> None:
    """Show how this site's agent is: link, outbox, work, environment."""
    with connect.site(settings) as end:
        found = end.call(SiteApiStub(end.channel).GetStatus, site_pb2.GetStatusRequest())
    show_one(settings, plain(found))


@command.command(epilog=example("housecall site ls"))
@output_option(lists=True)
@pass_settings
def ls(settings: Settings) -> None:
    """List the sites and whether they are connected."""
    with connect.reader(settings) as end:
        method = RegistryStub(end.channel).ListSites
        found = end.call(method, registry_pb2.ListSitesRequest())
    show_list(settings, [plain(item) for item in found.sites], COLUMNS, "no sites enrolled")
