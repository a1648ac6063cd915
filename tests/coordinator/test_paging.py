"""Lists of sites and join tokens: all of them, page by page, or those that are asked for."""

from __future__ import annotations

from typing import Any

from housecall import statement
from housecall.v1 import authority_pb2 as auth
from housecall.v1 import authority_pb2_grpc, ledger_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from housecall.v1.ledger_pb2_grpc import LedgerStub
from tests.coordinator.test_fleet import Agent, prepared
from tests.coordinator.world import World, result_statement, sha


def turned(method: Any, request: Any, field: str) -> list[list[Any]]:
    """Every page of two."""
    request.page_size, pages = 2, []
    while True:
        response = method(request)
        pages.append(list(getattr(response, field)))
        if not response.next_page_token:
            return pages
        request.page_token = response.next_page_token


def test_sites_come_in_pages(coordinator: World) -> None:
    sites = [coordinator.join(f"site-{number}", pb.ROLE_SITE) for number in range(3)]
    coordinator.join("ada", pb.ROLE_PERSON)
    listing = coordinator.operator.registry.ListSites
    pages = turned(listing, reg.ListSitesRequest(), "sites")
    assert [[site.name for site in page] for page in pages] == [
        [site.name for site in page] for page in (sites[:2], sites[2:])
    ]
    agent = Agent(sites[2])
    connected = turned(listing, reg.ListSitesRequest(connected=True), "sites")
    assert [[site.name for site in page] for page in connected] == [[sites[2].name]]
    agent.close()
    own = turned(sites[1].registry.ListSites, reg.ListSitesRequest(), "sites")
    assert [[site.name for site in page] for page in own] == [[sites[1].name]]


def test_tokens_come_in_pages_and_by_their_state(coordinator: World) -> None:
    for name in ("ada", "ben", "eva"):
        coordinator.token(name, pb.ROLE_PERSON)
    coordinator.join("north", pb.ROLE_SITE)
    listing = authority_pb2_grpc.AuthorityStub(coordinator.operator.channel).ListTokens
    every = turned(listing, auth.ListTokensRequest(), "tokens")
    names = [token.name.rpartition("/")[2] for page in every for token in page]
    assert names == ["olga", "ada", "ben", "eva", "north"]
    assert [len(page) for page in every] == [2, 2, 1]
    wanted = {
        auth.TOKEN_STATE_OPEN: ["ada", "ben", "eva"],
        auth.TOKEN_STATE_USED: ["olga", "north"],
    }
    for state, expected in wanted.items():
        some = turned(listing, auth.ListTokensRequest(state=state), "tokens")
        found = [token for page in some for token in page]
        assert [token.name.rpartition("/")[2] for token in found] == expected
        assert {token.state for token in found} == {state}


def test_a_page_has_no_more_bytes_than_a_client_takes(coordinator: World) -> None:
    """Twelve results of 0.7 MB each."""
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    digest = ""
    for number in range(12):
        said = result_statement(north, 1, "north/1", other, pb.PURPOSE_TEST)
        said.metrics.update({"x": "y" * 700_000, "number": number})
        said.supersedes = digest
        envelope = statement.sign(
            statement.build(said, {"t": sha("x")}), north.identity.signing_key
        )
        LedgerStub(north.channel).Append(ledger_pb2.AppendRequest(envelope=envelope))
        digest = statement.digest(envelope)
    request = reg.ListResultsRequest(model_id=other.id, include_superseded=True)
    numbers: list[int] = []
    while True:
        response = carla.registry.ListResults(request)
        numbers += [
            int(each.statement.metrics.fields["number"].number_value) for each in response.results
        ]
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert numbers == list(range(12))
    indexes: list[int] = []
    asked = ledger_pb2.ListEntriesRequest(count=1000)
    while entries := LedgerStub(coordinator.operator.channel).ListEntries(asked).entries:
        indexes += [entry.ledger_index for entry in entries]
        asked.start = indexes[-1] + 1
    assert indexes == list(range(len(indexes)))
    assert len(indexes) > 12
