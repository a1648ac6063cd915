"""`housecall review`: what waits for a yes of this site, to run or to leave."""

from __future__ import annotations

import click

from cli import connect, drafts
from cli.ask import confirm
from cli.command import example, output_option, yes_option
from cli.connect import End
from cli.messages import plain
from cli.output import Column, Row, show_list, show_one, tree
from cli.settings import Settings, pass_settings
from housecall.v1 import site_pb2
from housecall.v1.site_pb2_grpc import SiteApiStub

COLUMNS: list[Column] = [
    ("id", "id"),
    ("to", lambda row: "leave" if row["kind"] == "release" else row["kind"]),
    ("benchmark", lambda row: f"{row['benchmark_id']} {row['benchmark_name']}".strip()),
    ("model", lambda row: f"{(row['model'] or {}).get('id', '')} {row['model_name']}".strip()),
    ("model owner", "model_owner"),
    ("dataset", "dataset_id"),
    ("requested by", "requested_by"),
    ("since", "since"),
]


@click.group()
def command() -> None:
    """What waits for a yes of this site: models to run, results to leave."""


@command.command(epilog=example("housecall review ls"))
@output_option(lists=True)
@pass_settings
def ls(settings: Settings) -> None:
    """List what waits, the oldest first."""
    with connect.site(settings) as end:
        method = SiteApiStub(end.channel).ListReviews
        found = end.call(method, site_pb2.ListReviewsRequest())
    rows = [_row(review) for review in found.reviews]
    show_list(settings, rows, COLUMNS, "nothing waits for review")
    if rows:
        settings.next(f"housecall review show {rows[0]['id']}")


@command.command(
    short_help="Show what would leave, or the order that would run.",
    epilog=example("housecall review show 1"),
)
@click.argument("review_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, review_id: int) -> None:
    """Show one: for a release exactly what would leave, for a run the signed order."""
    with connect.site(settings) as end:
        show_one(settings, _row(_get(end, review_id)))
    settings.next(f"housecall review approve {review_id}", f"housecall review refuse {review_id}")


@command.command(epilog=example("housecall review approve 1"))
@click.argument("review_id", metavar="ID", type=int)
@yes_option
@output_option()
@pass_settings
def approve(settings: Settings, review_id: int, yes: bool) -> None:
    """Consent to a run, or release a result: it is shown first."""
    with connect.site(settings) as end:
        review = _get(end, review_id)
        if review.kind == site_pb2.REVIEW_KIND_RELEASE:
            site = drafts.site_name(end)
            drafts.show_statements(settings, site, [review.statement], review.digest)
            confirm("Send exactly this?", yes=yes, otherwise="nothing has left the site")
        else:
            _say(settings, review)
            confirm("Run this model here?", yes=yes, otherwise="nothing will run")
        request = site_pb2.ApproveReviewRequest(id=review_id, digest=review.digest)
        method = SiteApiStub(end.channel).ApproveReview
        answer = end.call(method, request, seconds=drafts.RELEASE_SECONDS)
    if answer.HasField("sent"):
        drafts.show_sent(settings, [answer.sent])
    else:
        show_one(settings, {"review": review_id, "approved": True})
        settings.next("housecall execution ls")


@command.command(
    short_help="Say no; that it was refused is all that leaves.",
    epilog=example("housecall review refuse 1"),
)
@click.argument("review_id", metavar="ID", type=int)
@yes_option
@output_option()
@pass_settings
def refuse(settings: Settings, review_id: int, yes: bool) -> None:
    """Say no: nothing runs or leaves but the fact that it was refused. It is shown first."""
    with connect.site(settings) as end:
        review = _get(end, review_id)
        _say(settings, review)
        settings.say(_consequence(review, drafts.site_name(end)))
        what = "this result" if review.kind == site_pb2.REVIEW_KIND_RELEASE else "this run"
        confirm(f"Refuse {what}?", yes=yes, otherwise="it still waits for review")
        request = site_pb2.RefuseReviewRequest(id=review_id)
        answer = end.call(SiteApiStub(end.channel).RefuseReview, request)
    if answer.HasField("sent"):
        drafts.show_sent(settings, [answer.sent])
    else:
        show_one(settings, {"review": review_id, "approved": False})


def _consequence(review: site_pb2.Review, site: str) -> str:
    """What a refusal states: an order's end, and nothing more."""
    release = review.kind == site_pb2.REVIEW_KIND_RELEASE
    code = "RELEASE_REFUSED" if release else "CONSENT_REFUSED"
    return (
        f"A refusal states that execution {review.execution_id} ended refused, code {code}; "
        f"nothing else leaves {site}."
    )


def _get(end: End, review_id: int) -> site_pb2.Review:
    request = site_pb2.GetReviewRequest(id=review_id)
    return end.call(SiteApiStub(end.channel).GetReview, request).review


def _row(review: site_pb2.Review) -> Row:
    """With the statement as the agent gave it, as text."""
    row = plain(review)
    row["statement"] = review.statement.decode("utf-8", "backslashreplace")
    return row


def _say(settings: Settings, review: site_pb2.Review) -> None:
    for line in tree(_row(review)):
        settings.say(line)
