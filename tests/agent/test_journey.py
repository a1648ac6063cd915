"""A data owner's journey over the local socket, against a real coordinator."""

from __future__ import annotations

import os

import pytest

from housecall import statement
from housecall.errors import Refusal
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent.site import Bench, Site, payload


def test_from_raw_data_to_a_submitted_result(bench: Bench, north: Site) -> None:
    assert north.register() == "north/1"
    assert north.dataset().accepted
    north.prepare()
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_PREPARED
    assert dict(north.dataset().cases) == {"ready": 3}
    north.operational()
    draft = north.associate()
    assert len(draft.statements) == 2
    sent = north.release(draft)
    assert [each.kind for each in sent] == ["ResultSubmitted", "AssociationRequested"]
    assert all(each.HasField("receipt") for each in sent)
    bench.carla.state(
        pb.AssociationDecided(association_id=1, decision=pb.DECISION_APPROVE, reason="good")
    )
    second = bench.add_model("second")
    bench.approve_model(second)
    rows = north.run()
    assert [(row.model_id, row.result, row.from_cache) for row in rows] == [
        (1, "b1m1d1", True),
        (2, "b1m2d1", False),
    ]
    request = site_pb2.DraftResultRequest(name="b1m2d1")
    (sent_result,) = north.release(north.draft("DraftResult", request))
    assert sent_result.id == "north/b1m2d1"
    result = bench.carla.registry.GetResult(reg.GetResultRequest(name="north/b1m2d1")).result
    assert result.statement.metrics["accuracy"] == 0.5
    assert result.statement.releaser.local_user.uid == os.getuid()
    assert [step.name for step in result.statement.steps] == ["infer", "evaluate"]
    with pytest.raises(Refusal) as caught:
        north.draft("DraftResult", request)
    assert caught.value.code == "RESULT_EXISTS"
    with north.api() as api:
        local = api.GetLocalResult(site_pb2.GetLocalResultRequest(name="b1m2d1"))
    assert local.result.submitted
    assert statement.digest(local.bundle.statement.envelope) == sent_result.envelope_digest


def test_the_model_never_sees_labels_and_the_evaluator_never_data(
    bench: Bench, north: Site
) -> None:
    north.ready()
    prepared = north.dataset().prepared_path
    sources = {
        spec.labels["housecall.step"]: {str(mount.source) for mount in spec.mounts}
        for spec in bench.engine.started
    }
    assert f"{prepared}/data" in sources["infer"]
    assert not any("labels" in source for source in sources["infer"])
    assert f"{prepared}/data" not in sources["evaluate"]


def test_no_draft_holds_a_path(bench: Bench, north: Site) -> None:
    registration = north.draft("DraftDataset", north.registration())
    north.release(registration)
    north.prepare()
    request = site_pb2.DraftOperationalRequest(dataset_id="north/1")
    operational = north.draft("DraftOperational", request)
    north.release(operational)
    association = north.associate()
    drafts = [registration, operational, association]
    for text in (bytes(each) for draft in drafts for each in draft.statements):
        for path in (north.data, north.settings.state_dir, "hospital", ".txt", "/prepared"):
            assert str(path).encode() not in text


def test_release_takes_only_what_was_shown(north: Site) -> None:
    draft = north.draft("DraftDataset", north.registration())
    draft.digest = statement.digest(b"something else")
    with pytest.raises(Refusal) as caught:
        north.release(draft)
    assert caught.value.code == "DRAFT_NOT_FOUND"
    with north.api() as api:
        assert not api.ListLocalDatasets(site_pb2.ListLocalDatasetsRequest()).datasets


def test_what_is_signed_is_what_was_shown(bench: Bench, north: Site) -> None:
    draft = north.draft("DraftDataset", north.registration())
    (sent,) = north.release(draft)
    bundle = north.agent.registry.bundle(sent.envelope_digest)
    shown = statement.unverified(bundle.statement.envelope).payload
    assert shown == draft.statements[0]


def test_a_draft_uses_no_number_up(north: Site) -> None:
    first = north.draft("DraftDataset", north.registration(name="one"))
    second = north.draft("DraftDataset", north.registration(name="two"))
    assert north.release(second)[0].id == "north/1"
    with pytest.raises(Refusal) as caught:
        north.release(first)
    assert caught.value.code == "DRAFT_OUTDATED"


def test_a_test_is_stated_once(bench: Bench, north: Site) -> None:
    north.ready()
    withdrawal = north.draft(
        "DraftWithdrawal", site_pb2.DraftWithdrawalRequest(association_id=1, reason="changed")
    )
    north.release(withdrawal)
    again = north.associate()
    assert len(again.statements) == 1
    assert north.release(again)[0].id == "2"


def test_supersede_names_the_replaced_result(bench: Bench, north: Site) -> None:
    north.ready()
    north.run()
    request = site_pb2.DraftResultRequest(name="b1m1d1")
    (first,) = north.release(north.draft("DraftResult", request))
    north.run(rerun=True)
    request.supersede = True
    draft = north.draft("DraftResult", request)
    assert payload(draft).supersedes == first.envelope_digest
    assert north.release(draft)[0].HasField("receipt")


def test_a_new_run_is_not_paired_with_the_old_receipt(bench: Bench, north: Site) -> None:
    north.ready()
    north.run()
    request = site_pb2.DraftResultRequest(name="b1m1d1")
    north.release(north.draft("DraftResult", request))
    request.supersede = True
    with pytest.raises(Refusal) as caught:
        north.draft("DraftResult", request)
    assert caught.value.code == "RESULT_EXISTS"
    assert "run it again with --rerun first" in caught.value.message
    shown = site_pb2.GetLocalResultRequest(name="b1m1d1")
    with north.api() as api:
        assert api.GetLocalResult(shown).result.submitted
        first = api.GetLocalResult(shown).result.ledger_index
        north.run(rerun=True)
        after = api.GetLocalResult(shown)
    assert not after.result.submitted
    assert after.result.ledger_index == first
    assert not after.HasField("bundle")
