"""Results at the site: what executions left, and the statements that they can become."""

from __future__ import annotations

from dataclasses import dataclass

from agent.effects import released_blob, standing
from agent.journal import Journal
from agent.records import Execution, Outgoing, State
from agent.release import Item
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

FINISHED = (State.SUCCEEDED, State.WAITING_RELEASE)
PURPOSES = {"BENCHMARK": pb.PURPOSE_BENCHMARK, "TEST": pb.PURPOSE_TEST}


@dataclass(frozen=True)
class LocalResult:
    """The newest finished execution of its name, and the newest statement of that name if one was
    released; `released` says whether it is of this very run, not of an earlier one."""

    name: str
    execution: Execution
    sent: Outgoing | None
    released: bool = False


def name_of(execution: Execution) -> str:
    """ "b1m4d1": benchmark, model, and the dataset's number at this site."""
    number = execution.dataset_id.rpartition("/")[2]
    return f"b{execution.benchmark_id}m{execution.model_id}d{number}"


def about_result(said: pb.ResultSubmitted) -> str:
    """ "result:b1m4d1", or "test:b1m4d1"."""
    what = "result" if said.purpose == pb.PURPOSE_BENCHMARK else "test"
    number = said.dataset_id.rpartition("/")[2]
    return f"{what}:b{said.benchmark_id}m{said.model.id}d{number}"


class Results:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def all(self) -> list[LocalResult]:
        """One a name, oldest name first."""
        newest: dict[str, Execution] = {}
        for execution in self._journal.executions():
            if execution.state in FINISHED and execution.result:
                newest[name_of(execution)] = execution
        return [self._local(name, execution) for name, execution in newest.items()]

    def _local(self, name: str, execution: Execution) -> LocalResult:
        sent = self.standing("result", name)
        kept = self._journal.blob(released_blob(sent)) if sent else None
        of_this = sent is not None and (kept is None or int(kept) == execution.source_id)
        return LocalResult(name, execution, sent, of_this)

    def get(self, name: str) -> LocalResult:
        for result in self.all():
            if result.name == name:
                return result
        raise Refusal(
            Kind.NOT_FOUND,
            "RESULT_NOT_FOUND",
            f"result {name}: expected one of this site's, got none of that name; "
            "`housecall result ls` lists them",
        )

    def standing(self, what: str, name: str) -> Outgoing | None:
        """`what` is result or test."""
        return standing(self._journal, f"{what}:{name}")

    def item(
        self, execution: Execution, purpose: str, releaser: pb.Releaser, *, order: bool
    ) -> Item:
        """The statement of an execution's result; it names the one that it replaces, if any."""
        said = pb.ResultSubmitted.FromString(execution.result)
        said.purpose = PURPOSES[purpose]
        about = about_result(said)
        earlier = standing(self._journal, about)
        said.execution_id = execution.execution_id if order else 0
        said.supersedes = earlier.envelope_digest if earlier else ""
        said.releaser.CopyFrom(releaser)
        subjects = {
            f"dataset {said.dataset_id}": said.prepared_fingerprint,
            f"benchmark {said.benchmark_id}": said.benchmark_digest,
            f"model {said.model.id}": said.model.digest,
            "evaluator": said.evaluator.digest,
        }
        return Item(said, subjects, about, execution.dataset_id)

    def require_newer(self, result: LocalResult) -> None:
        """Superseding a statement with the very run that it is of would change nothing."""
        if result.released:
            raise Refusal(
                Kind.CONFLICT,
                "RESULT_EXISTS",
                f"result {result.name}: expected a newer run than the submitted one, got that one; "
                "run it again with --rerun first",
            )

    def require_not_submitted(self, name: str) -> None:
        standing = self.standing("result", name)
        if standing is not None:
            where = "the ledger" if standing.state == "accepted" else "the outbox"
            raise Refusal(
                Kind.CONFLICT,
                "RESULT_EXISTS",
                f"result {name}: expected one that was not submitted, got one that is in {where} "
                "already; to replace it, submit with --supersede",
            )
