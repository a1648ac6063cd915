"""The committee's board: a benchmark's sites by models, as one snapshot."""

from __future__ import annotations

from coordinator import views
from coordinator.fleet import Fleet
from coordinator.models import Benchmark
from coordinator.store import Reader
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

Cell = reg.WatchBenchmarkResponse.Cell


def snapshot(reader: Reader, benchmark: Benchmark, fleet: Fleet) -> reg.WatchBenchmarkResponse:
    """Approved datasets by approved models; empty cells were neither ordered nor submitted. A few
    questions in all, however many cells there are."""
    datasets = reader.approved_datasets(benchmark.id)
    models = reader.approved_models(benchmark)
    submitted = reader.submitted(benchmark.id)
    orders = {(row.dataset_id, row.model_id): row for row in reader.latest_executions(benchmark.id)}
    cells = []
    for dataset in datasets:
        for model in models:
            cell = Cell(dataset_id=dataset.id, model_id=model.id)
            order = orders.get((dataset.id, model.id))
            if (dataset.id, model.id) in submitted:
                cell.state, cell.submitted = pb.EXECUTION_STATE_SUCCEEDED, True
            elif order is not None:
                cell.state, cell.step, _ = views.progress(order, fleet)
                cell.reason = order.reason
            else:
                continue
            cells.append(cell)
    names = list(dict.fromkeys(dataset.site for dataset in datasets))
    rows = {row.name: row for row in reader.participants(names)}
    return reg.WatchBenchmarkResponse(
        dataset_ids=[dataset.id for dataset in datasets],
        model_ids=[model.id for model in models],
        cells=cells,
        sites=[views.site(rows[name], fleet) for name in names],
    )
