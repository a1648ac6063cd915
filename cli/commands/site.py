"""`housecall site`: the sites of the fleet; this site's status is a room of its own."""

from __future__ import annotations

import click

from cli import connect
from cli.command import LazyGroup, example, output_option
from cli.messages import plain
from cli.output import Column, show_list
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub

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


@click.group(
    cls=LazyGroup,
    table={"status": ("cli.commands.site_status:status", "Show how this site's agent is.")},
)
def command() -> None:
    """This site's agent, and the sites of the fleet."""


@command.command(epilog=example("housecall site ls", "housecall site ls --connected"))
@click.option("--connected", is_flag=True, help="Only those that are connected.")
@output_option(lists=True)
@pass_settings
def ls(settings: Settings, connected: bool) -> None:
    """List the sites and whether they are connected."""
    request = registry_pb2.ListSitesRequest(connected=connected)
    with connect.reader(settings) as end:
        found = end.pages(RegistryStub(end.channel).ListSites, request, "sites")
    empty = "no site is connected" if connected else "no sites enrolled"
    show_list(settings, [plain(item) for item in found], COLUMNS, empty)
