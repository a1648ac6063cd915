"""Containers written in MedPerf's form for no one in particular run unmodified."""

from __future__ import annotations

from examples.demo.world import COMMITTEE, MODEL_OWNER, World
from examples.foreign.slides import write_slides
from examples.images.catalog import EXAMPLES

FOREIGN = EXAMPLES / "foreign"


def register(world: World, who: str, role: str, name: str) -> str:
    folder = FOREIGN / name
    words = ["--config", str(folder / "container_config.yaml"), "--role", role]
    if (folder / "parameters.yaml").exists():
        words += ["--parameters", str(folder / "parameters.yaml")]
    return str(world.json(who, "container", "register", *words)["id"])


def test_a_foreign_benchmark_runs_from_raw_data_to_a_result(world: World) -> None:
    preparation = register(world, COMMITTEE, "preparation", "spots_preparation")
    evaluator = register(world, COMMITTEE, "evaluator", "spots_evaluator")
    container = register(world, MODEL_OWNER, "model", "spots_model")
    made = world.json(MODEL_OWNER, "model", "register", "--name", "spots", "--container", container)
    words = ["--name", "spots", "--preparation", preparation, "--evaluator", evaluator]
    words += ["--reference-model", str(made["id"]), "--auto-approve-datasets", "always"]
    benchmark = str(world.json(COMMITTEE, "benchmark", "create", *words)["id"])

    raw = world.raw("south") / "slides"
    write_slides(raw)
    register_words = ["--name", "slides", "--description", "grey", "--location", "lab"]
    register_words += ["--data-path", str(raw / "images"), "--labels-path", str(raw / "truth")]
    listed = {row["id"] for row in world.json("south", "dataset", "ls", "--mine")}
    world.run("south", "dataset", "register", *register_words, "--benchmark", benchmark, "--yes")
    (dataset,) = {row["id"] for row in world.json("south", "dataset", "ls", "--mine")} - listed
    world.run("south", "dataset", "prepare", dataset)
    world.run("south", "dataset", "set-operational", dataset, "--yes")
    world.run("south", "dataset", "associate", dataset, "--benchmark", benchmark, "--yes")
    rows = world.json("south", "benchmark", "run", benchmark, "--dataset", dataset)["rows"]
    assert [(row["error_code"], row["from_cache"]) for row in rows] == [("", True)]
    result = world.json("south", "result", "show", rows[0]["result"])
    shown = result.get("result", result)
    assert shown["metrics"]
    world.run("south", "result", "submit", rows[0]["result"], "--yes")
    committee = world.json(COMMITTEE, "result", "ls", "--benchmark", benchmark)
    assert {row["statement"]["purpose"] for row in committee} == {"test", "benchmark"}
