"""Which images there are, what each is built from, and in what order.

Every Dockerfile copies its whole tree at once, `COPY . /`: the engine then keeps the times of
folders as they are sent, and the same content has the same image id on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
BASE = "housecall-demo/base:1"
BUSYBOX = "housecall-foreign/busybox:1"
PYTHON = "housecall-demo/python:1"
SCIKIT_LEARN = "housecall-demo/scikit-learn:1"


@dataclass(frozen=True)
class Image:
    """`folder` holds the Dockerfile; a `requirements.txt` beside it becomes `opt/python/`."""

    name: str
    folder: Path
    parent: str


def _demo(name: str, folder: str, parent: str) -> Image:
    return Image(f"housecall-demo/{name}:1", EXAMPLES / folder, parent)


def _foreign(name: str, folder: str, parent: str) -> Image:
    return Image(f"housecall-foreign/{name}:1", EXAMPLES / "foreign" / folder, parent)


MODELS = "breast_cancer/models"
IMAGES = (
    _demo("python", "images/python", BASE),
    _demo("scikit-learn", "images/scikit_learn", PYTHON),
    _demo("breast-cancer-preparation", "breast_cancer/preparation", PYTHON),
    _demo("breast-cancer-evaluator", "breast_cancer/evaluator", PYTHON),
    _demo("logistic-regression", f"{MODELS}/logistic_regression", PYTHON),
    _demo("random-forest", f"{MODELS}/random_forest", SCIKIT_LEARN),
    _demo("gradient-boosting", f"{MODELS}/gradient_boosting", SCIKIT_LEARN),
    _demo("nearest-neighbours", f"{MODELS}/nearest_neighbours", SCIKIT_LEARN),
    _foreign("spots-preparation", "spots_preparation", BUSYBOX),
    _foreign("spots-model", "spots_model", BASE),
    _foreign("spots-evaluator", "spots_evaluator", BUSYBOX),
)


def wanted(only: str | None) -> tuple[Image, ...]:
    """All images in building order, or one (by full or short name) and what it stands on.

    Raises ValueError for a name that is not there.
    """
    if only is None:
        return IMAGES
    chosen = {image.name for image in IMAGES if only in _names(image)}
    if not chosen:
        known = ", ".join(_names(image)[2] for image in IMAGES)
        raise ValueError(f"no image named {only}; expected one of {known}")
    for image in reversed(IMAGES):
        if image.name in chosen:
            chosen.add(image.parent)
    return tuple(image for image in IMAGES if image.name in chosen)


def _names(image: Image) -> tuple[str, str, str]:
    untagged = image.name.rsplit(":", 1)[0]
    return image.name, untagged, untagged.rsplit("/", 1)[1]
