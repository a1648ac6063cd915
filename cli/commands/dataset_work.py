"""`housecall dataset prepare|check|set-operational|associate`: work on a dataset at its site."""

from __future__ import annotations

import click

from cli import connect, drafts
from cli.command import example, output_option, yes_option
from cli.messages import plain
from cli.output import clean, show_one
from cli.settings import Settings, pass_settings
from housecall.errors import Kind, Refusal
from housecall.v1 import site_pb2
from housecall.v1.site_pb2_grpc import SiteApiStub

GOES_ON = "the work goes on at the site; run the same command again to join it"


@click.command(epilog=example("housecall dataset prepare 1"))
@click.argument("dataset_id", metavar="ID")
@click.option("--stop", is_flag=True, help="Stop a preparation that runs.")
@output_option()
@pass_settings
def prepare(settings: Settings, dataset_id: str, stop: bool) -> None:
    """Run the preparation: prepare, sanity check, statistics.

    It can be stopped and taken up again; edits made by hand in between are kept.
    """
    settings.on_interrupt = f"{GOES_ON} (`--stop` stops it)"
    with connect.site(settings) as end:
        stub, whole = SiteApiStub(end.channel), drafts.dataset_id(end, dataset_id)
        if stop:
            end.call(stub.StopPreparation, site_pb2.StopPreparationRequest(dataset_id=whole))
            show_one(settings, {"dataset": whole, "state": "stopped"})
            settings.next(f"housecall dataset prepare {dataset_id}")
            return
        request = site_pb2.PrepareDatasetRequest(dataset_id=whole)
        look = f"housecall dataset show {dataset_id}"
        done = _done(drafts.follow(end.stream(stub.PrepareDataset, request, look=look)))
    _refuse_unprepared(done, dataset_id)
    _show_done(settings, done)
    settings.next(f"housecall dataset set-operational {dataset_id}")


@click.command(epilog=example("housecall dataset check 1 --full"))
@click.argument("dataset_id", metavar="ID")
@click.option("--full", is_flag=True, help="Read every file again, unchanged or not.")
@output_option()
@pass_settings
def check(settings: Settings, dataset_id: str, full: bool) -> None:
    """Verify that raw and prepared data are still those that were fingerprinted."""
    with connect.site(settings) as end:
        whole = drafts.dataset_id(end, dataset_id)
        request = site_pb2.CheckDatasetRequest(dataset_id=whole, full=full)
        events = end.stream(SiteApiStub(end.channel).CheckDataset, request)
        done = _done(drafts.follow(events))
    _show_done(settings, done)


@click.command("set-operational", epilog=example("housecall dataset set-operational 1"))
@click.argument("dataset_id", metavar="ID")
@yes_option
@output_option()
@pass_settings
def set_operational(settings: Settings, dataset_id: str, yes: bool) -> None:
    """Declare the prepared data final and publish its fingerprint and statistics.

    Both fingerprints are verified first. There is no way back.
    """
    with connect.site(settings) as end:
        whole = drafts.dataset_id(end, dataset_id)
        request = site_pb2.DraftOperationalRequest(dataset_id=whole)
        events = end.stream(SiteApiStub(end.channel).DraftOperational, request)
        question = f"Make dataset {whole} operational for good, and send this?"
        sent = drafts.release(settings, end, events, question=question, yes=yes)
    drafts.show_sent(settings, sent)
    settings.next(f"housecall dataset associate {dataset_id} --benchmark ID")


@click.command(epilog=example("housecall dataset associate 1 --benchmark 1"))
@click.argument("dataset_id", metavar="ID")
@click.option("--benchmark", type=int, required=True, help="The benchmark to take part in.")
@yes_option
@output_option()
@pass_settings
def associate(settings: Settings, dataset_id: str, benchmark: int, yes: bool) -> None:
    """Ask to take part in a benchmark.

    The reference model runs on the dataset first; its metrics are shown and sent with the request.
    """
    settings.on_interrupt = GOES_ON
    with connect.site(settings) as end:
        whole = drafts.dataset_id(end, dataset_id)
        request = site_pb2.DraftAssociationRequest(dataset_id=whole, benchmark_id=benchmark)
        events = end.stream(
            SiteApiStub(end.channel).DraftAssociation, request, look="housecall execution ls"
        )
        question = f"Ask for dataset {whole} to take part in benchmark {benchmark}?"
        sent = drafts.release(settings, end, events, question=question, yes=yes)
    drafts.show_sent(settings, sent)
    settings.next(f"housecall association ls --benchmark {benchmark}")


def _done(ending: drafts.Ending) -> site_pb2.WorkEvent.Done:
    if isinstance(ending, site_pb2.WorkEvent.Done):
        return ending
    raise Refusal(Kind.INTERNAL, "RPC_FAILED", "the agent sent a draft where none was asked for")


def _refuse_unprepared(done: site_pb2.WorkEvent.Done, dataset_id: str) -> None:
    state, text = done.dataset.state, done.text or done.dataset.problem
    if state == site_pb2.LOCAL_DATASET_STATE_OUTSTANDING:
        raise Refusal(
            Kind.NOT_READY,
            "PREPARATION_OUTSTANDING",
            f"{text}. Do what is left in {done.dataset.prepared_path}, then run "
            f"`housecall dataset prepare {dataset_id}` again",
        )
    if state == site_pb2.LOCAL_DATASET_STATE_BROKEN:
        raise Refusal(Kind.INVALID, "PREPARATION_BROKEN", text)


def _show_done(settings: Settings, done: site_pb2.WorkEvent.Done) -> None:
    if done.text:
        settings.say(clean(done.text))
    if settings.output == "json":
        show_one(settings, plain(done.dataset))
