"""Trains the four models on the training part and packs their weights, the same bytes every time.

Weights travel as MedPerf's additional files: a tarball by digest, never inside an image.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from examples.breast_cancer.data import FEATURES, training_part

SEED = 20


@dataclass(frozen=True)
class Weights:
    """A packed model: `path` is the tarball, `sha256` its digest in hexadecimal digits."""

    name: str
    path: Path
    sha256: str


def write_weights(out_dir: Path) -> dict[str, Weights]:
    """Write `weights-<name>.tar.gz` and its `.sha256` for every model, keyed by name."""
    values = np.array([case.values for case in training_part()])
    malignant = np.array([case.malignant for case in training_part()], dtype=int)
    out_dir.mkdir(parents=True, exist_ok=True)
    return {
        name: _pack(name, train(values, malignant), out_dir) for name, train in TRAINERS.items()
    }


def _logistic_regression(values: Any, malignant: Any) -> dict[str, bytes]:
    """Plain numbers: five lines of arithmetic apply them, and no library is needed."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    model = LogisticRegression(C=0.5, max_iter=1000).fit((values - mean) / scale, malignant)
    weights = {
        "features": list(FEATURES),
        "median": np.median(values, axis=0).tolist(),
        "mean": _rounded(mean),
        "scale": _rounded(scale),
        "coefficient": _rounded(model.coef_[0]),
        "intercept": _rounded(model.intercept_)[0],
    }
    return {"weights.json": json.dumps(weights, indent=1).encode()}


def _random_forest(values: Any, malignant: Any) -> dict[str, bytes]:
    model = RandomForestClassifier(n_estimators=60, min_samples_leaf=2, random_state=SEED)
    return {"model.joblib": _pickled(model.fit(values, malignant))}


def _gradient_boosting(values: Any, malignant: Any) -> dict[str, bytes]:
    booster = GradientBoostingClassifier(
        n_estimators=120, max_depth=2, learning_rate=0.15, subsample=0.7, random_state=SEED
    )
    model = make_pipeline(SimpleImputer(strategy="median"), booster)
    return {"model.joblib": _pickled(model.fit(values, malignant))}


def _nearest_neighbours(values: Any, malignant: Any) -> dict[str, bytes]:
    """The training points themselves; how many neighbours vote is a parameter."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    weights = {
        "features": list(FEATURES),
        "median": np.median(values, axis=0).tolist(),
        "mean": _rounded(mean),
        "scale": _rounded(scale),
        "points": [_rounded(point) for point in (values - mean) / scale],
        "malignant": malignant.tolist(),
    }
    return {"neighbours.json": json.dumps(weights).encode()}


TRAINERS: dict[str, Callable[[Any, Any], dict[str, bytes]]] = {
    "logistic_regression": _logistic_regression,
    "random_forest": _random_forest,
    "gradient_boosting": _gradient_boosting,
    "nearest_neighbours": _nearest_neighbours,
}


def _rounded(values: Any) -> list[float]:
    """Eight digits, so that another processor's last bit does not change the digest."""
    return [float(f"{value:.8g}") for value in values]


def _pickled(model: Any) -> bytes:
    out = io.BytesIO()
    joblib.dump({"features": list(FEATURES), "model": model}, out)
    return out.getvalue()


def _pack(name: str, files: dict[str, bytes], out_dir: Path) -> Weights:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for file_name, content in sorted(files.items()):
            entry = tarfile.TarInfo(file_name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path = out_dir / f"weights-{name}.tar.gz"
    path.write_bytes(packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    for written in (path, path.with_name(path.name + ".sha256")):
        written.chmod(0o644)
    return Weights(name, path, digest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.breast_cancer.train")
    parser.add_argument("out_dir", type=Path, help="receives weights-<name>.tar.gz")
    for weights in write_weights(parser.parse_args().out_dir).values():
        size = weights.path.stat().st_size
        print(f"{weights.name}: {size / 1024:.0f} KiB, sha256 {weights.sha256}")


if __name__ == "__main__":
    main()
