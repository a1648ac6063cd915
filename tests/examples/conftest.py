"""An engine, the demo's images, and one campaign of all containers over all sites."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from examples.breast_cancer.data import SITE_SIZES, write_sites
from examples.breast_cancer.train import TRAINERS, Weights, write_weights
from examples.engine import STATE_DIR, EngineError, ensure_engine
from examples.images.plan import build_images

from .running import Outcome, run_task

DEMO = Path(__file__).resolve().parents[2] / "examples" / "breast_cancer"


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    try:
        ensure_engine(STATE_DIR, print)
    except EngineError as reason:
        pytest.skip(str(reason))
    build_images()
    connected = docker.from_env(timeout=60)
    yield connected
    connected.close()


@dataclass(frozen=True)
class Site:
    """A site's folders; `site / label` names the places of outputs."""

    name: str
    folder: Path

    def prepared(self) -> dict[str, Path]:
        return {"data_path": self.folder / "prepared", "labels_path": self.folder / "truth"}

    def preparation(self, task: str) -> dict[str, Path]:
        """The mounts of a task of the preparation container."""
        if task == "prepare":
            return {
                "data_path": self.folder / "data",
                "labels_path": self.folder / "labels",
                "output_path": self.folder / "prepared",
                "output_labels_path": self.folder / "truth",
                "report_file": self.folder / "report.yaml",
            }
        return {**self.prepared(), "output_path": self.statistics}

    @property
    def statistics(self) -> Path:
        return self.folder / "statistics.yaml"

    def metrics(self, model: str) -> Path:
        return self.folder / f"{model}.yaml"


@dataclass(frozen=True)
class Campaign:
    """What every container answered: keys are (site, task) and (site, model, task)."""

    sites: dict[str, Site]
    outcomes: dict[tuple[str, ...], Outcome]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def campaign(
    client: docker.DockerClient,
    weights: dict[str, Weights],
    tmp_path_factory: pytest.TempPathFactory,
) -> Campaign:
    root = tmp_path_factory.mktemp("sites")
    sites = {name: Site(name, folder) for name, folder in write_sites(root).items()}
    unpacked = {name: _unpack(packed, root / name) for name, packed in weights.items()}
    outcomes: dict[tuple[str, ...], Outcome] = {}
    with ThreadPoolExecutor(2) as pool:
        for part in pool.map(lambda site: _run_site(client, site, unpacked), sites.values()):
            outcomes |= part
    assert len(sites) == len(SITE_SIZES)
    assert len(unpacked) == len(TRAINERS)
    return Campaign(sites, outcomes)


def _unpack(packed: Weights, folder: Path) -> Path:
    with tarfile.open(packed.path) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _run_site(
    client: docker.DockerClient, site: Site, weights: dict[str, Path]
) -> dict[tuple[str, ...], Outcome]:
    outcomes: dict[tuple[str, ...], Outcome] = {}
    config = DEMO / "preparation/container_config.yaml"
    for task in ("prepare", "sanity_check", "statistics"):
        outcomes[site.name, task] = run_task(client, config, task, site.preparation(task))
    for model, folder in weights.items():
        predictions = site.folder / f"{model}.predictions"
        infer = run_task(
            client,
            DEMO / "models" / model / "container_config.yaml",
            "infer",
            {
                "data_path": site.prepared()["data_path"],
                "additional_files": folder,
                "output_path": predictions,
            },
        )
        outcomes[site.name, model, "infer"] = infer
        if infer.exit_code == 0:
            outcomes[site.name, model, "evaluate"] = run_task(
                client,
                DEMO / "evaluator/container_config.yaml",
                "evaluate",
                {
                    "predictions": predictions,
                    "labels": site.prepared()["labels_path"],
                    "output_path": site.metrics(model),
                },
            )
    return outcomes
