"""What committee and model owner do before a hospital comes: containers, models, the benchmark,
the reference dataset, and the tests of the models that take part from the start."""

from __future__ import annotations

from examples.breast_cancer.train import Weights
from examples.demo.world import COMMITTEE, MODEL_OWNER, REFERENCE, World
from examples.images.catalog import EXAMPLES

FOLDER = EXAMPLES / "breast_cancer"
MODELS = ("logistic_regression", "random_forest", "gradient_boosting", "nearest_neighbours")
"""In the order of their registration: ids 1 to 4. The first is the reference model."""
FROM_THE_START = (2, 4)
LATE = 3


def set_up(world: World) -> None:
    """Everything up to the point where hospitals can register."""
    world.say("committee and model owner register containers, models and the benchmark")
    preparation = _register(world, COMMITTEE, "preparation", FOLDER / "preparation")
    evaluator = _register(world, COMMITTEE, "evaluator", FOLDER / "evaluator")
    for name in MODELS:
        folder = FOLDER / "models" / name
        container = _register(world, MODEL_OWNER, "model", folder, world.weights[name])
        words = ["--name", name.replace("_", "-"), "--container", container]
        world.run(MODEL_OWNER, "model", "register", *words)
    create = ["--name", "breast-cancer", "--description", "Malignant or benign, from cell nuclei"]
    create += ["--preparation", preparation, "--reference-model", "1", "--evaluator", evaluator]
    create += ["--statistics-schema", str(FOLDER / "statistics.schema.json")]
    create += ["--metrics-schema", str(FOLDER / "metrics.schema.json")]
    world.run(COMMITTEE, "benchmark", "create", *create)
    world.say("the committee's reference site takes part, and the models are tested there")
    world.policy(REFERENCE).write_text(policy("committee's own site", run="allow"))
    take_part(world, REFERENCE)
    approve_requests(world)
    world.run(COMMITTEE, "benchmark", "policy", "1", "--reference-dataset", f"{REFERENCE}/1")
    for model in FROM_THE_START:
        associate_model(world, model)


def take_part(world: World, site: str) -> None:
    """A site's way from raw data to the request to take part."""
    raw = world.raw(site)
    register = ["--name", f"{site}-aspirates", "--description", "Fine needle aspirates"]
    register += ["--location", f"{site.capitalize()} Hospital", "--benchmark", "1"]
    register += ["--data-path", str(raw / "data"), "--labels-path", str(raw / "labels")]
    world.run(site, "dataset", "register", *register, "--yes")
    world.run(site, "dataset", "prepare", "1")
    world.run(site, "dataset", "set-operational", "1", "--yes")
    world.run(site, "dataset", "associate", "1", "--benchmark", "1", "--yes")


def associate_model(world: World, model: int) -> None:
    world.run(MODEL_OWNER, "model", "associate", str(model), "--benchmark", "1", "--yes")
    approve_requests(world)


def approve_requests(world: World) -> None:
    listed = world.json(COMMITTEE, "association", "ls", "--benchmark", "1", "--state", "requested")
    for association in listed:
        reason = ["--reason", "the test looks right"]
        world.run(COMMITTEE, "association", "approve", str(association["id"]), *reason)


def policy(name: str, *, run: str) -> str:
    """A site's standing policy with one rule for the model owner's models."""
    return (
        "rules:\n"
        f'  - name: "{name}"\n'
        "    benchmark: 1\n"
        f'    owners: ["spiffe://demo/person/{MODEL_OWNER}"]\n'
        f"    run: {run}\n"
        "    release: allow\n"
    )


def _register(
    world: World, owner: str, role: str, folder: object, weights: Weights | None = None
) -> str:
    words = ["--config", f"{folder}/container_config.yaml", "--role", role]
    words += ["--parameters", f"{folder}/parameters.yaml"]
    if weights:
        url = f"http://127.0.0.1:{world.files_port}/{weights.path.name}"
        words += ["--additional-files", url]
        words += ["--additional-files-digest", f"sha256:{weights.sha256}"]
    return str(world.json(owner, "container", "register", *words)["id"])
