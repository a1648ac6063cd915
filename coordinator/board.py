"""The committee's board: a benchmark's sites by models, as one snapshot."""

from __future__ import annotations

from coordinator import views
from coordinator.fleet import Fleet
from coordinator.models import Benchmark, Participant
from coordinator.store import Reader
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

Cell = reg.WatchBenchmarkResponse.Cell


def snapshot(reader: Reader, benchmark: Benchmark, fleet: Fleet) -> reg.WatchBenchmarkResponse:
    """Approved datasets by approved models; empty cells were neither ordered nor submitted."""
    datasets = reader.approved_datasets(benchmark.id)
    models = reader.approved_models(benchmark)
    cells = [
        cell
        for dataset in datasets
        for model in models
        if (cell := _cell(reader, benchmark.id, dataset.id, model.id, fleet))
    ]
    sites = {dataset.site: reader.get(Participant, dataset.site, "site") for dataset in datasets}
    return reg.WatchBenchmarkResponse(
        dataset_ids=[dataset.id for dataset in datasets],
        model_ids=[model.id for model in models],
        cells=cells,
        sites=[views.site(row, fleet) for row in sites.values()],
    )


def _cell(
    reader: Reader, benchmark_id: int, dataset_id: str, model_id: int, fleet: Fleet
) -> Cell | None:
    cell = Cell(dataset_id=dataset_id, model_id=model_id)
    if reader.standing_result(benchmark_id, dataset_id, model_id, pb.PURPOSE_BENCHMARK):
        cell.state, cell.submitted = pb.EXECUTION_STATE_SUCCEEDED, True
        return cell
    row = reader.latest_execution(benchmark_id, dataset_id, model_id)
    if row is None:
        return None
    seen = views.execution(reader, row, fleet)
    cell.state, cell.step, cell.reason = seen.state, seen.step, seen.reason
    return cell
