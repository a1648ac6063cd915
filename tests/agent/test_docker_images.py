"""Images at the Docker engine: by digest, pulled, from archives, and what goes wrong with them."""

from __future__ import annotations

import json
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.engines.docker import DockerEngine, pulling
from agent.engines.docker.failures import refusal as refusal_for
from housecall.errors import Kind, Refusal
from tests.agent import images, registry

NOWHERE = "sha256:" + "f" * 64


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with closing(DockerEngine(None, allow_pull=True)) as opened:
        yield opened


def test_images_by_id(engine: DockerEngine) -> None:
    image_id = images.busybox()
    assert engine.find_image(images.TAG, image_id) == image_id
    assert 2**20 < engine.image_size(image_id) < 2**23
    offline = DockerEngine(None, allow_pull=False)
    with pytest.raises(Refusal) as refused:
        offline.find_image(images.TAG, NOWHERE)
    assert refused.value.message == (
        f"image {images.TAG}: expected {NOWHERE}, got {image_id}; ask its owner which one is meant"
    )
    assert (refused.value.code, refused.value.kind) == ("IMAGE_DIGEST_DIFFERS", Kind.CONFLICT)
    with pytest.raises(Refusal, match="at the site, got nothing; load it") as refused:
        offline.find_image("housecall-test/nowhere:1", NOWHERE)
    assert refused.value.code == "IMAGE_NOT_FOUND"
    with pytest.raises(Refusal, match="expected a digest sha256") as refused:
        offline.find_image(images.TAG, "latest")
    assert refused.value.code == "IMAGE_DIGEST_INVALID"
    with pytest.raises(Refusal, match="got nothing; load it"):
        offline.image_size(NOWHERE)


def test_pull_by_manifest_and_find_it_offline(engine: DockerEngine) -> None:
    with registry.serving() as served:
        assert engine.find_image(served.reference, served.manifest) == served.image_id
    offline = DockerEngine(None, allow_pull=False)
    assert offline.find_image("elsewhere/other:2", served.manifest) == served.image_id
    images.client().remove_image(served.image_id, force=True)


def test_pull_by_manifest_but_pinned_by_id(engine: DockerEngine) -> None:
    with registry.serving() as served:
        pinned = f"{served.reference.rpartition(':')[0]}@{served.manifest}"
        assert engine.find_image(pinned, served.image_id) == served.image_id
        with pytest.raises(Refusal) as refused:
            engine.find_image(pinned, NOWHERE)
        assert refused.value.code == "IMAGE_DIGEST_DIFFERS"
    images.client().remove_image(served.image_id, force=True)


def test_pulls_that_fail(engine: DockerEngine) -> None:
    with registry.serving() as served:
        with pytest.raises(
            Refusal, match="manifest unknown; load it at the site or ask"
        ) as refused:
            engine.find_image(served.reference, NOWHERE)
        assert refused.value.code == "IMAGE_NOT_FOUND"
        served.tamper()
        with pytest.raises(Refusal) as refused:
            engine.find_image(served.reference, served.manifest)
        assert refused.value.code == "IMAGE_PULL_FAILED"
    with pytest.raises(Refusal) as refused:
        engine.find_image(served.reference, served.manifest)
    assert refused.value.code == "IMAGE_PULL_FAILED"


def test_a_pull_can_be_stopped(engine: DockerEngine) -> None:
    with registry.serving() as served:
        served.slow = served.layer
        with pytest.raises(Refusal) as refused:
            engine.find_image(served.reference, served.manifest, served.asked.is_set)
        assert (refused.value.code, refused.value.kind) == ("STEP_STOPPED", Kind.CONFLICT)
        assert served.hung_up.wait(20), "the engine stopped, too"


def test_a_pull_that_begins_with_silence_can_be_stopped(engine: DockerEngine) -> None:
    with registry.serving() as served:
        served.silent = served.manifest
        with pytest.raises(Refusal) as refused:
            engine.find_image(served.reference, served.manifest, served.asked.is_set)
        assert refused.value.code == "STEP_STOPPED"


def test_a_pull_ends(engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PULL_S", 1.0)
    with registry.serving() as served:
        served.slow = served.layer
        with pytest.raises(Refusal, match="expected it within 1 s, got a part; load it") as refused:
            engine.find_image(served.reference, served.manifest)
        assert refused.value.code == "IMAGE_PULL_FAILED"


def test_archives(engine: DockerEngine, tmp_path: Path) -> None:
    unique = uuid.uuid4().hex
    image_id = images.derived([f"LABEL a={unique}"], f"housecall-test/archive-{unique}")
    archive = images.save(image_id, tmp_path / "image.tar")
    images.client().remove_image(image_id, force=True)
    with pytest.raises(Refusal) as refused:
        engine.load_archive(archive, NOWHERE)
    assert refused.value.message == (
        f"image archive: expected {NOWHERE}, got {image_id}; ask its owner which one is meant"
    )
    with pytest.raises(Refusal):
        engine.image_size(image_id)
    assert engine.load_archive(archive, image_id) == image_id
    assert engine.load_archive(tmp_path / "not needed", image_id) == image_id
    images.client().remove_image(image_id, force=True)


def test_archives_of_something_else(engine: DockerEngine, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps([]))
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    for path in (empty, tmp_path / "manifest.json", tmp_path / "missing"):
        with pytest.raises(Refusal) as refused:
            engine.load_archive(path, NOWHERE)
        assert (refused.value.code, refused.value.kind) == ("IMAGE_ARCHIVE_INVALID", Kind.INVALID)


@pytest.mark.parametrize(
    "said",
    [
        "manifest unknown: manifest unknown",
        "repository registry.example/model not found: does not exist or no pull access",
        "name unknown: repository name not known to registry",
        "pull access denied for model, repository does not exist or may require 'docker login'",
    ],
)
def test_a_plain_no_of_a_registry_is_final(said: str) -> None:
    assert refusal_for("IMAGE_PULL_FAILED", said).code == "IMAGE_NOT_FOUND"


def test_a_full_disk_has_its_own_code() -> None:
    refusal = refusal_for("IMAGE_PULL_FAILED", "write /var/lib/x: no space left on device")
    assert (refusal.code, refusal.kind) == ("DISK_FULL", Kind.EXHAUSTED)
