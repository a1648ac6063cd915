"""The same inputs give the same bytes: data, weights and images."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import docker
import pytest

from examples.breast_cancer.data import SITE_SIZES, training_part, write_sites
from examples.breast_cancer.train import Weights, write_weights
from examples.images.builder import STAMP
from examples.images.catalog import IMAGES, wanted
from examples.images.plan import build_images


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_data_is_the_same_and_readable_by_anyone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for name in ("first", "second"):
            write_sites(tmp_path / name)
    finally:
        os.umask(before)
    assert _files(tmp_path / "first") == _files(tmp_path / "second")
    for path in (tmp_path / "first" / "north").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_no_case_is_at_two_places() -> None:
    assert len(training_part()) + sum(SITE_SIZES.values()) == 569


def test_weights_are_the_same_and_their_digest_is_true(
    weights: dict[str, Weights], tmp_path: Path
) -> None:
    for name, again in write_weights(tmp_path).items():
        content = weights[name].path.read_bytes()
        assert again.path.read_bytes() == content
        assert weights[name].sha256 == hashlib.sha256(content).hexdigest() == again.sha256
        assert (
            again.path.with_name(again.path.name + ".sha256").read_text().startswith(again.sha256)
        )


def test_a_second_build_builds_nothing(client: docker.DockerClient) -> None:
    begin = time.monotonic()
    assert build_images() == []
    assert time.monotonic() - begin < 5


def test_an_image_built_again_has_the_same_id(client: docker.DockerClient) -> None:
    name = "housecall-demo/breast-cancer-evaluator:1"
    first = client.images.get(name).id
    client.images.remove(name, force=True)
    assert build_images(only="breast-cancer-evaluator") == [name]
    assert client.images.get(name).id == first


def test_images_share_their_layers_and_hold_no_weights(client: docker.DockerClient) -> None:
    for image in IMAGES:
        built = client.images.get(image.name)
        assert STAMP in built.labels
        if image.parent in {other.name for other in IMAGES}:
            parent = client.images.get(image.parent).attrs["RootFS"]["Layers"]
            assert built.attrs["RootFS"]["Layers"][: len(parent)] == parent


def test_an_unknown_image_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no image named nonsense; expected one of python"):
        wanted("nonsense")
