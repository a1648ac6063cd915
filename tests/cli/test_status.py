"""Status screens: what they say, how long ago, and the whole of it as JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cli import since
from housecall.errors import EXIT_CODES, Kind
from housecall.times import stamp
from housecall.v1 import fleet_pb2, site_pb2
from housecall.v1 import registry_pb2 as registry
from housecall.v1 import statements_pb2 as pb
from tests.cli.conftest import World

Overview = registry.GetOverviewResponse
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NORTH, SOUTH, WEST = (f"spiffe://demo/site/{name}" for name in ("north", "south", "west"))
CARLA = "spiffe://demo/person/carla"


def before(**lengths: float) -> Timestamp:
    return stamp(NOW - timedelta(**lengths))


def overview() -> Overview:
    sites = [
        Overview.SiteStanding(
            site=registry.Site(
                name=NORTH,
                connected=True,
                connected_at=before(hours=3),
                agent_version="0.1.0",
                clock_skew_seconds=-90,
                running=1,
            ),
            certificate_expires_at=before(days=-6, hours=-1),
        ),
        Overview.SiteStanding(site=registry.Site(name=SOUTH, heard_at=before(days=2))),
        Overview.SiteStanding(site=registry.Site(name=WEST)),
    ]
    none = fleet_pb2.WAIT_REASON_UNSPECIFIED
    executions = [
        Overview.OpenExecution(
            execution=registry.Execution(
                id=number,
                dataset_id="north/1",
                model=pb.Pin(id=4),
                state=state,
                step=step,
                updated_at=before(minutes=5),
            ),
            site=site,
            requester=CARLA,
            accepted=accepted,
            waits_for=waits_for,
        )
        for number, site, state, step, accepted, waits_for in (
            (1, NORTH, pb.EXECUTION_STATE_RUNNING, "infer", True, none),
            (2, NORTH, pb.EXECUTION_STATE_WAITING_CONSENT, "", True, none),
            (3, NORTH, pb.EXECUTION_STATE_ORDERED, "", False, none),
            (4, SOUTH, pb.EXECUTION_STATE_ORDERED, "", False, none),
            (5, NORTH, pb.EXECUTION_STATE_QUEUED, "", True, fleet_pb2.WAIT_REASON_SLOT),
            (6, NORTH, pb.EXECUTION_STATE_QUEUED, "", True, fleet_pb2.WAIT_REASON_DISK),
            (7, NORTH, pb.EXECUTION_STATE_QUEUED, "", True, fleet_pb2.WAIT_REASON_ENGINE),
            (8, NORTH, pb.EXECUTION_STATE_QUEUED, "", True, none),
        )
    ]
    return Overview(
        coordinator=Overview.Coordinator(
            version="0.1.0",
            database="postgresql",
            now=stamp(NOW),
            serving_since=before(days=9),
            ledger_size=120,
            checkpoint_at=before(seconds=12),
            replicas=["a", "b"],
            last_backup=Overview.Backup(taken_at=before(days=2), ledger_size=118),
            backup_overdue=True,
        ),
        replicas=[
            Overview.Replica(
                name="a",
                host="one.example.org",
                version="0.1.0",
                store="db.example.org:5432/housecall",
                serving_since=before(days=9),
                sites=1,
            ),
            Overview.Replica(name="b"),
        ],
        sites=sites,
        executions=executions,
        executions_open=1004,
        requests=[
            Overview.OpenRequest(
                association_id=3,
                benchmark_id=1,
                model_id=5,
                since=before(days=2),
                votes_needed=2,
                approvals=1,
                waits_for=[CARLA],
            )
        ],
        requests_open=1,
        tokens=[
            Overview.OpenToken(
                token_id="0123456789abcdef",
                name=WEST,
                role=pb.ROLE_SITE,
                issued_at=before(hours=1),
                expires_at=before(hours=-23),
            )
        ],
    )


ADMIN_SCREEN = """\
coordinator      0.1.0, serving for 9 d
database         postgresql
ledger           120 entries, the newest 12 s ago
last backup      2 d ago, 118 entries; overdue: run `housecall-coordinator backup`
sites            3, 1 connected
open executions  1004; the oldest 8 are below
open requests    1
join tokens      1

replica  host             serving for  sites  version  store
-------  ---------------  -----------  -----  -------  -----------------------------
a        one.example.org  9 d              1  0.1.0    db.example.org:5432/housecall
b        -                -                0  -        -

site   link                             agent  clock         certificate ends  running  waiting
-----  -------------------------------  -----  ------------  ----------------  -------  -------
north  connected for 3 h                0.1.0  1 min behind  in 6 d                  1        0
south  away, heard 2 d ago              -      -             -                       0        0
west   away, not heard since the start  -      -             -                       0        0

execution  site   dataset  model  state            since  waits for
---------  -----  -------  -----  ---------------  -----  ----------------------------
        1  north  north/1      4  running: infer   5 min  -
        2  north  north/1      4  waiting consent  5 min  a person of the site: consent
        3  north  north/1      4  ordered          5 min  the agent to take it
        4  south  north/1      4  ordered          5 min  the site to connect
        5  north  north/1      4  queued           5 min  a slot
        6  north  north/1      4  queued           5 min  a person of the site: disk
        7  north  north/1      4  queued           5 min  a person of the site: engine
        8  north  north/1      4  queued           5 min  a slot

association  benchmark  of       since  votes   waits for
-----------  ---------  -------  -----  ------  ---------
          3          1  model 5  2 d    1 of 2  carla

join token        for        role  issued  expires
----------------  ---------  ----  ------  -------
0123456789abcdef  site/west  site  1 h     in 23 h
"""


def test_the_operators_screen(elsewhere: World) -> None:
    elsewhere.registry.overview = overview()
    shown = elsewhere.done("admin", "status")
    assert without_rules(shown) == without_rules(ADMIN_SCREEN)


@pytest.mark.parametrize(
    ("taken", "overdue", "said"),
    [
        (None, True, "last backup      never: run `housecall-coordinator backup`"),
        (before(hours=5), False, "last backup      5 h ago, 118 entries"),
        (None, False, None),
    ],
)
def test_the_last_backup(
    elsewhere: World, taken: Timestamp | None, overdue: bool, said: str | None
) -> None:
    found = overview()
    found.coordinator.backup_overdue = overdue
    found.coordinator.ClearField("last_backup")
    if taken:
        found.coordinator.last_backup.CopyFrom(Overview.Backup(taken_at=taken, ledger_size=118))
    elsewhere.registry.overview = found
    lines = elsewhere.done("admin", "status").splitlines()
    assert [line for line in lines if "last backup" in line] == ([said] if said else [])


def test_the_operators_screen_as_json_is_whole(elsewhere: World) -> None:
    elsewhere.registry.overview = overview()
    found = elsewhere.json("admin", "status")
    assert found["coordinator"]["checkpoint_at"] == "2026-03-01T11:59:48Z"
    assert found["coordinator"]["last_backup"]["ledger_size"] == 118
    assert [each["host"] for each in found["replicas"]] == ["one.example.org", ""]
    assert found["executions"][1]["execution"]["state"] == "waiting_consent"
    assert found["sites"][2]["certificate_expires_at"] is None
    assert (found["executions_open"], found["requests"][0]["waits_for"]) == (1004, [CARLA])


def test_nobody_and_nothing_there(elsewhere: World) -> None:
    own = Overview.Coordinator(version="0.1.0", database="sqlite", now=stamp(NOW))
    elsewhere.registry.overview = Overview(coordinator=own)
    lines = elsewhere.done("admin", "status").splitlines()
    assert "sites            0, 0 connected" in lines
    assert "" not in lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (1e6, "11 d")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert since.span(seconds) == text


def test_a_time_that_is_over_is_told_so() -> None:
    assert since.until("2026-03-01T11:00:00Z", NOW) == "1 h ago"
    assert since.until("2026-03-04T12:00:00Z", NOW) == "in 3 d"
    assert since.until(None, NOW) == since.ago(None, NOW) == "-"


def site_status(now: datetime) -> site_pb2.GetStatusResponse:
    def lately(**lengths: float) -> Timestamp:
        return stamp(now - timedelta(**lengths))

    return site_pb2.GetStatusResponse(
        site=NORTH,
        agent_version="0.1.0",
        coordinator="coordinator.example:8443",
        connected=False,
        connected_at=lately(hours=1),
        link_since=lately(minutes=5, seconds=20),
        next_try_at=lately(seconds=-30),
        link_problem="cannot reach it [UNREACHABLE]",
        clock_skew_seconds=0.31,
        environment=pb.EnvironmentFacts(engine="docker", engine_version="20.10"),
        slots=2,
        running=1,
        disk_free_bytes=3 * 2**30,
        disk_reserve_bytes=2**30,
        outbox=1,
        outbox_since=lately(minutes=4, seconds=20),
        certificate_expires_at=lately(days=-3, minutes=-10),
        verifier_key="demo/ledger+1+A",
        gpus=[
            site_pb2.GpuUse(uuid="GPU-1", name="A", memory_bytes=2**36, local_execution_id=5),
            site_pb2.GpuUse(uuid="GPU-2", name="A", memory_bytes=2**36, dataset_id="north/2"),
            site_pb2.GpuUse(uuid="GPU-3", name="A", memory_bytes=2**36),
        ],
        work=[
            site_pb2.Work(
                local_execution_id=6,
                dataset_id="north/1",
                model_id=5,
                waits_for=fleet_pb2.WAIT_REASON_CONSENT,
                since=lately(days=2, minutes=5),
                next_step="housecall review show 3",
            ),
            site_pb2.Work(
                local_execution_id=5,
                dataset_id="north/1",
                model_id=4,
                step="infer",
                since=lately(minutes=12, seconds=20),
                heard_at=lately(minutes=1, seconds=20),
            ),
            site_pb2.Work(dataset_id="north/2", waits_for=fleet_pb2.WAIT_REASON_SLOT),
            site_pb2.Work(
                dataset_id="north/1",
                step="ResultSubmitted",
                waits_for=fleet_pb2.WAIT_REASON_RECEIPT,
                since=lately(minutes=4, seconds=20),
                next_step="housecall-agent doctor",
            ),
        ],
    )


SITE_SCREEN = """\
site         north
agent        0.1.0
coordinator  coordinator.example:8443
link         down for 5 min, next try in S s
problem      cannot reach it [UNREACHABLE]
clock        0.3 s ahead of the coordinator's
engine       docker 20.10
slots        1 of 2 in use
disk         3.0 GiB free, no step starts below 1.0 GiB
outbox       1 without a receipt, the oldest for 4 min
certificate  ends in 3 d
policy       none: every order asks
ledger key   demo/ledger+1+A

gpu    name  memory    used by
-----  ----  --------  -----------
GPU-1  A     64.0 GiB  execution 5
GPU-2  A     64.0 GiB  north/2
GPU-3  A     64.0 GiB  free

execution  dataset  model  what                                   since   last line  next
---------  -------  -----  -------------------------------------  ------  ---------  -------------
6          north/1  5      waits for a yes to run                 2 d     -          housecall review show 3
5          north/1  4      runs infer                             12 min  1 min ago  -
-          north/2  -      waits for a slot                       -       -          -
-          north/1  -      ResultSubmitted waits for its receipt  4 min   -          housecall-agent doctor
"""  # noqa: E501 - as wide as it is


def without_rules(text: str) -> list[list[str]]:
    lines = re.sub(r"next try in \d+ s", "next try in S s", text).splitlines()
    return [line.split() for line in lines if not line.startswith("---")]


def test_the_sites_screen(at_site: World) -> None:
    at_site.site.status = site_status(datetime.now(UTC))
    assert without_rules(at_site.done("site", "status")) == without_rules(SITE_SCREEN)


def test_the_clock_of_an_agent_that_was_never_connected(at_site: World) -> None:
    found = site_status(datetime.now(UTC))
    found.ClearField("connected_at")
    at_site.site.status = found
    (line,) = [each for each in at_site.done("site", "status").splitlines() if "clock  " in each]
    assert line.split() == ["clock", "-"]


def test_a_link_that_ended_for_good(at_site: World) -> None:
    found = site_status(datetime.now(UTC))
    found.link_ended = True
    at_site.site.status = found
    (line,) = [each for each in at_site.done("site", "status").splitlines() if "link  " in each]
    said = "down for 5 min, ended for good: tell the operator and the other sites"
    assert line.split(maxsplit=1) == ["link", said]


def test_the_sites_screen_as_json_is_whole(at_site: World) -> None:
    at_site.site.status = site_status(NOW)
    found = at_site.json("site", "status")
    assert found["work"][0]["waits_for"] == "consent"
    assert found["work"][1]["waits_for"] is None
    assert found["work"][1]["heard_at"] == "2026-03-01T11:58:40Z"
    assert (found["link_since"], found["next_try_at"]) == (
        "2026-03-01T11:54:40Z",
        "2026-03-01T12:00:30Z",
    )


def test_a_site_where_all_is_well(at_site: World) -> None:
    now = datetime.now(UTC)
    at_site.site.status = site_pb2.GetStatusResponse(
        site=NORTH, connected=True, link_since=stamp(now - timedelta(hours=3)), slots=2
    )
    shown = at_site.done("site", "status")
    assert "link         connected for 3 h" in shown
    assert "outbox       empty: every statement has its receipt" in shown
    assert "\n\n" not in shown


def test_a_site_whose_engine_is_away(at_site: World) -> None:
    at_site.site.status = site_pb2.GetStatusResponse(engine_problem="it does not answer")
    shown = at_site.done("site", "status")
    assert "engine       it does not answer" in shown
    assert "tries now" in shown


def test_watching_shows_it_again_until_it_ends(
    at_site: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(since, "LOOK_EVERY_S", 0)
    at_site.site.looks = 3
    result = at_site.run("site", "status", "--watch", "--output", "json")
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"site"')]
    assert len(lines) == 3
    assert result.exit_code == EXIT_CODES[Kind.UNAVAILABLE]
    at_site.site.looks = 2
    shown = at_site.run("site", "status", "--watch").stdout
    assert shown.count("slots ") == 2
