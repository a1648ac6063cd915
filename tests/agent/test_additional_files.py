"""Additional files: fetched by digest alone, unpacked safely, verified at every use."""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent.additional_files
from agent.additional_files import PARTIAL, Bounds, remove_partial
from agent.fetching import Outward
from housecall.errors import Kind, Refusal

ensure = functools.partial(agent.additional_files.ensure, outward=Outward(allow_private=True))
FILE = {"weights/model.bin": b"7" * 1000}
Member = tuple[str, bytes, str]  # name, type, link target


def tarball(path: Path, members: list[Member] | None = None, mode: str = "w:gz") -> str:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in FILE.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
        for name, kind, target in members or ():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "files.tar.gz"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_customary_tarball_is_unpacked(cache: Path, source: Path, mode: str) -> None:
    digest = tarball(source, [("weights/same", tarfile.SYMTYPE, "../weights/model.bin")], mode)
    folder = ensure(str(source), digest, cache, allow_local=True)
    assert (folder / "weights/model.bin").read_bytes() == b"7" * 1000
    assert (folder / "weights/same").read_bytes() == b"7" * 1000
    assert (folder / "weights/model.bin").stat().st_mode & 0o777 == 0o644
    assert folder == cache / digest[7:] / "files"
    assert [path.name for path in cache.iterdir()] == [digest[7:]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_by_url(cache: Path, source: Path, server: str) -> None:
    digest = tarball(source)
    folder = ensure(f"{server}/{source.name}", digest, cache, allow_local=False)
    assert (folder / "weights/model.bin").exists()
    with pytest.raises(Refusal) as refused:
        ensure(f"{server}/missing", "0" * 64, cache, allow_local=False)
    assert refused.value.message == (
        "additional files: expected an archive from 127.0.0.1, got 404; ask the container's owner"
    )
    assert (refused.value.code, refused.value.kind) == (
        "ADDITIONAL_FILES_UNAVAILABLE",
        Kind.UNAVAILABLE,
    )


@pytest.mark.parametrize(
    ("location", "allow_local", "got"),
    [
        ("{source}", False, "http or https, got a path"),
        ("file://{source}", False, "http or https, got file"),
        ("ftp://example.org/x", True, "http or https, a file URL or a path, got ftp"),
        ("http://127.0.0.1:9/x", False, "an archive from 127.0.0.1, got Connection refused"),
        ("/no/such/file", True, "an archive from a local path, got No such file"),
    ],
)
def test_sources_that_are_refused(
    cache: Path, source: Path, location: str, allow_local: bool, got: str
) -> None:
    digest = tarball(source)
    with pytest.raises(Refusal) as refused:
        ensure(location.format(source=source), digest, cache, allow_local=allow_local)
    assert refused.value.code == "ADDITIONAL_FILES_UNAVAILABLE"
    assert got in refused.value.message


def test_another_digest(cache: Path, source: Path) -> None:
    digest = tarball(source)
    expected = "sha256:" + "0" * 64
    with pytest.raises(Refusal) as refused:
        ensure(source.as_uri(), expected, cache, allow_local=True)
    assert refused.value.message == (
        f"additional files: expected {expected}, got {digest}; ask the container's owner"
    )
    assert (refused.value.code, refused.value.kind) == (
        "ADDITIONAL_FILES_DIGEST_DIFFERS",
        Kind.CONFLICT,
    )
    assert list(cache.iterdir()) == []
    with pytest.raises(Refusal, match="expected a digest sha256:<64 hex digits>, got another"):
        ensure(source.as_uri(), "../../etc", cache, allow_local=True)


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
RELATIVE = "expected relative paths without '..', got another"
OUT = "expected links that stay inside, got one that leads out"
BELOW = "expected folders above every file, got a link or a file"
EARLIER = "expected hard links to files before them, got another"
SPECIAL = "expected files, folders and links, got a device or pipe"
TWICE = "expected every path once, got one twice"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("/etc/x", tarfile.REGTYPE, "")], RELATIVE),
        ([("../x", tarfile.REGTYPE, "")], RELATIVE),
        ([("a/../../x", tarfile.REGTYPE, "")], RELATIVE),
        ([("x", SYM, "/etc/passwd")], OUT),
        ([("x", SYM, "../x")], OUT),
        ([("a/x", SYM, "../../x")], OUT),
        ([("a/up", SYM, ".."), ("b/x", SYM, "../a/up/..")], OUT),
        ([("x", SYM, "."), ("x/y", tarfile.REGTYPE, "")], BELOW),
        ([("weights/model.bin/x", tarfile.REGTYPE, "")], BELOW),
        ([("x", HARD, "/etc/passwd")], EARLIER),
        ([("x", HARD, "../x")], EARLIER),
        ([("l", SYM, "weights"), ("x", HARD, "l")], EARLIER),
        ([("x", tarfile.CHRTYPE, "")], SPECIAL),
        ([("x", tarfile.BLKTYPE, "")], SPECIAL),
        ([("x", tarfile.FIFOTYPE, "")], SPECIAL),
        ([("weights/model.bin", SYM, "other")], TWICE),
        ([("weights", SYM, "."), ("weights", tarfile.DIRTYPE, "")], TWICE),
    ],
)
def test_unsafe_tarballs(cache: Path, source: Path, members: list[Member], message: str) -> None:
    digest = tarball(source, members)
    with pytest.raises(Refusal) as refused:
        ensure(str(source), digest, cache, allow_local=True)
    assert refused.value.message == f"additional files: {message}; ask the container's owner"
    assert (refused.value.code, refused.value.kind) == ("ADDITIONAL_FILES_UNSAFE", Kind.INVALID)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (Bounds(archive_bytes=50), "expected at most 50 bytes, got more"),
        (Bounds(unpacked_bytes=999), "expected at most 999 bytes in 100000 entries, got more"),
        (Bounds(entries=1), "bytes in 1 entries, got more"),
    ],
)
def test_bounds(cache: Path, source: Path, bounds: Bounds, message: str) -> None:
    digest = tarball(source, [("folder", tarfile.DIRTYPE, "")])
    with pytest.raises(Refusal, match=message) as refused:
        ensure(str(source), digest, cache, allow_local=True, bounds=bounds)
    assert refused.value.code == "ADDITIONAL_FILES_UNSAFE"


def test_a_header_that_would_fill_the_memory(cache: Path, source: Path) -> None:
    member = tarfile.TarInfo("header")
    member.type, member.size = tarfile.XHDTYPE, 2**32
    source.write_bytes(gzip.compress(member.tobuf() + bytes(2**20)))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(Refusal, match="expected headers of ordinary size, got a larger one"):
        ensure(str(source), digest, cache, allow_local=True)


def test_what_is_no_tarball(cache: Path, source: Path) -> None:
    tarball(source)
    whole = source.read_bytes()
    for content in (b"hello", whole[:-40], whole[:60] + b"x" * 60, gzip.compress(b"text")):
        source.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        with pytest.raises(Refusal) as refused:
            ensure(str(source), digest, cache, allow_local=True)
        assert refused.value.code == "ADDITIONAL_FILES_UNSAFE"


def test_verified_at_every_use_and_mended(cache: Path, source: Path) -> None:
    digest = tarball(source)
    folder = ensure(str(source), digest, cache, allow_local=True)
    kept = folder.stat().st_ino
    source.rename(source.with_suffix(".away"))
    assert ensure(str(source), digest, cache, allow_local=True).stat().st_ino == kept
    for change in (
        lambda: (folder / "weights/model.bin").write_bytes(b"8" * 1000),
        lambda: (folder / "weights/model.bin").unlink(),
        lambda: (folder / "more").write_text("x"),
        lambda: (folder / "more").symlink_to("/etc"),
        lambda: (folder.parent / "manifest.json").write_text("{"),
    ):
        change()
        with pytest.raises(Refusal):
            ensure(str(source), digest, cache, allow_local=True)
        source.with_suffix(".away").rename(source)
        mended = ensure(str(source), digest, cache, allow_local=True)
        assert (mended / "weights/model.bin").read_bytes() == b"7" * 1000
        assert not (mended / "more").exists()
        source.rename(source.with_suffix(".away"))


def test_many_at_once_agree(cache: Path, source: Path) -> None:
    digest, folders = tarball(source), []

    def work() -> None:
        folders.append(ensure(str(source), digest, cache, allow_local=True))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [cache / digest[7:] / "files"] * 6
    assert [path.name for path in cache.iterdir()] == [digest[7:]]


def test_a_full_disk(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    digest = tarball(source)
    monkeypatch.setattr(agent.additional_files, "_write_manifest", full)
    with pytest.raises(Refusal) as refused:
        ensure(str(source), digest, cache, allow_local=True)
    assert (refused.value.code, refused.value.kind) == ("DISK_FULL", Kind.EXHAUSTED)
    assert list(cache.iterdir()) == []


def test_what_a_killed_agent_left_is_removed(cache: Path) -> None:
    (cache / f"{PARTIAL}x" / "entry").mkdir(parents=True)
    (cache / "kept").mkdir()
    remove_partial(cache)
    assert [path.name for path in cache.iterdir()] == ["kept"]


def test_a_fetch_ends_when_it_is_stopped(cache: Path, source: Path) -> None:
    digest = tarball(source)
    with pytest.raises(Refusal) as refused:
        ensure(str(source), digest, cache, allow_local=True, stopped=lambda: True)
    assert refused.value.code == "STEP_STOPPED"
    assert not list(cache.glob("*"))
