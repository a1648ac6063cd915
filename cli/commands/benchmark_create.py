"""`housecall benchmark create|policy`: a committee's rules, each thing pinned by its digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import connect, publish
from cli.command import example, output_option
from cli.pins import container_pin, model_pin
from cli.settings import Settings, pass_settings
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub

if TYPE_CHECKING:
    from housecall.identity import Identity

AUTO_HELP = "Approve without a vote: never, always, or a list of names (NAME,NAME)."
auto_datasets_option = click.option("--auto-approve-datasets", metavar="WHOM", help=AUTO_HELP)
auto_models_option = click.option("--auto-approve-models", metavar="WHOM", help=AUTO_HELP)
schema_type = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    epilog=example(
        "housecall benchmark create --name tissue --preparation 1 --reference-model 1 \\",
        "  --evaluator 3 --statistics-schema statistics.json --metrics-schema metrics.json \\",
        "  --committee ada --committee grace --votes 2",
    )
)
@click.option("--name", required=True, help="A name to recognise it by.")
@click.option("--description", default="", help="What is judged, for others to read.")
@click.option("--preparation", type=int, required=True, help="Container that prepares data.")
@click.option(
    "--reference-model", type=int, required=True, help="Model that datasets are tried with."
)
@click.option("--evaluator", type=int, required=True, help="Container that computes metrics.")
@click.option("--statistics-schema", type=schema_type, help="JSON Schema of statistics.")
@click.option("--metrics-schema", type=schema_type, help="JSON Schema of metrics.")
@click.option("--committee", multiple=True, metavar="NAME", help="A member; you are one anyway.")
@click.option("--votes", type=click.IntRange(1), default=1, show_default=True, help="Yes needed.")
@click.option("--allow-partial-results", is_flag=True, help="Accept results that lack cases.")
@click.option("--minimum-count", type=click.IntRange(0), default=0, help="Hide counts below it.")
@click.option("--wall-limit", type=click.IntRange(0), default=0, help="Seconds a task may take.")
@click.option("--silence-limit", type=click.IntRange(0), default=0, help="Seconds without output.")
@auto_datasets_option
@auto_models_option
@output_option()
@pass_settings
def create(
    settings: Settings,
    name: str,
    description: str,
    preparation: int,
    reference_model: int,
    evaluator: int,
    statistics_schema: Path | None,
    metrics_schema: Path | None,
    committee: tuple[str, ...],
    votes: int,
    allow_partial_results: bool,
    minimum_count: int,
    wall_limit: int,
    silence_limit: int,
    auto_approve_datasets: str | None,
    auto_approve_models: str | None,
) -> None:
    """Create a benchmark. Containers and model are pinned by the digests they have now."""
    with connect.signer(settings) as (end, identity):
        predicate = pb.BenchmarkRegistered(
            name=name,
            description=description,
            preparation=container_pin(end, preparation),
            reference_model=model_pin(end, reference_model),
            evaluator=container_pin(end, evaluator),
            statistics_schema=_schema(statistics_schema),
            metrics_schema=_schema(metrics_schema),
            committee=_committee(identity, committee),
            votes_needed=votes,
            allow_partial_results=allow_partial_results,
            minimum_count=minimum_count,
            limits=pb.TaskLimits(wall_seconds=wall_limit, silence_seconds=silence_limit),
            policy=pb.BenchmarkPolicy(
                datasets=auto_approval(identity, "site", auto_approve_datasets or "never"),
                models=auto_approval(identity, "person", auto_approve_models or "never"),
            ),
        )
        subjects = {
            "preparation": predicate.preparation.digest,
            "reference model": predicate.reference_model.digest,
            "evaluator": predicate.evaluator.digest,
        }
        response = publish.publish(end, identity, predicate, subjects)
    publish.show_receipt(settings, response, f"created benchmark {{id}} ({name})")
    settings.next(f"housecall benchmark show {response.id}")


@click.command(
    epilog=example(
        "housecall benchmark policy 1 --reference-dataset reference/1 \\",
        "  --auto-approve-datasets north,south",
    )
)
@click.argument("benchmark_id", metavar="ID", type=int)
@click.option("--reference-dataset", metavar="DATASET", help="Where models are tested; '' = none.")
@auto_datasets_option
@auto_models_option
@output_option()
@pass_settings
def policy(
    settings: Settings,
    benchmark_id: int,
    reference_dataset: str | None,
    auto_approve_datasets: str | None,
    auto_approve_models: str | None,
) -> None:
    """Change a benchmark's policy; what is not named stays as it is."""
    if (reference_dataset, auto_approve_datasets, auto_approve_models) == (None, None, None):
        raise click.UsageError("nothing to change: name at least one of the policy's options")
    with connect.signer(settings) as (end, identity):
        request = registry_pb2.GetBenchmarkRequest(id=benchmark_id)
        benchmark = end.call(RegistryStub(end.channel).GetBenchmark, request).benchmark
        changed = pb.BenchmarkPolicy()
        changed.CopyFrom(benchmark.policy)
        if reference_dataset is not None:
            changed.reference_dataset_id = reference_dataset
        if auto_approve_datasets is not None:
            changed.datasets.CopyFrom(auto_approval(identity, "site", auto_approve_datasets))
        if auto_approve_models is not None:
            changed.models.CopyFrom(auto_approval(identity, "person", auto_approve_models))
        predicate = pb.BenchmarkPolicyChanged(benchmark_id=benchmark_id, policy=changed)
        subjects = {f"benchmark {benchmark.statement.name}": benchmark.origin.envelope_digest}
        response = publish.publish(end, identity, predicate, subjects)
    publish.show_receipt(settings, response, f"changed the policy of benchmark {benchmark_id}")
    settings.next(f"housecall benchmark show {benchmark_id}")


def auto_approval(identity: Identity, kind: str, whom: str) -> pb.AutoApproval:
    """`never`, `always` or names of sites or persons, as `kind` says."""
    if whom in ("never", "always"):
        mode = pb.APPROVAL_MODE_NEVER if whom == "never" else pb.APPROVAL_MODE_ALWAYS
        return pb.AutoApproval(mode=mode)
    names = [publish.participant_id(identity, kind, name.strip()) for name in whom.split(",")]
    return pb.AutoApproval(mode=pb.APPROVAL_MODE_ALLOWLIST, allowlist=names)


def _committee(identity: Identity, names: tuple[str, ...]) -> list[str]:
    others = [publish.person_id(identity, name) for name in names]
    return list(dict.fromkeys([identity.name, *others]))


def _schema(path: Path | None) -> str:
    """The file verbatim, once it is known to be a JSON Schema."""
    if path is None:
        return ""
    from jsonschema import Draft202012Validator, SchemaError

    text = path.read_text(encoding="utf-8")
    try:
        Draft202012Validator.check_schema(json.loads(text))
    except (ValueError, SchemaError) as error:
        why = error.message if isinstance(error, SchemaError) else str(error)
        raise Refusal(
            Kind.INVALID,
            "SCHEMA_INVALID",
            f"{path}: expected a JSON Schema (2020-12), got {why}; correct it and try again",
        ) from error
    return text
