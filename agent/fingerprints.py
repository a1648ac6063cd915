"""Fingerprints of the site's datasets, with progress on a feed and refusals in place of errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.events import Amount, Feed
from agent.worker import Stop
from housecall.errors import Kind, Refusal
from housecall.fingerprint import DataError, FingerprintCache, Progress, fingerprint

ANEW = "restore what was registered, or register the data as it is now as a new dataset"


class Fingerprinter:
    """Takes fingerprints with one cache of unchanged files."""

    def __init__(self, cache: Path) -> None:
        self._cache = FingerprintCache(cache)

    def take(
        self, label: str, parts: Mapping[str, Path], feed: Feed, stop: Stop, *, full: bool = False
    ) -> str:
        """The digest of these parts as they are now; `label` names them in the progress. Refuses
        with STEP_STOPPED when it is asked to stop meanwhile."""

        def progress(now: Progress) -> None:
            stop.check()
            feed.emit(Amount(label, now.bytes_done, now.bytes_total, "bytes"))

        try:
            taken = fingerprint(parts, cache=self._cache, full=full, progress=progress)
        except DataError as error:
            raise Refusal(error.kind, error.code, f"{label}: {error.message}") from error
        return taken.digest

    def require(
        self,
        label: str,
        parts: Mapping[str, Path],
        expected: str,
        feed: Feed,
        stop: Stop,
        *,
        full: bool = False,
        of: str = "",
        advice: str = ANEW,
    ) -> None:
        """Refuses with DATASET_CHANGED unless the parts still have this fingerprint; `of` names
        the dataset, `advice` is the next step."""
        got = self.take(label, parts, feed, stop, full=full)
        named = f"{label} of dataset {of}" if of else label
        if got != expected:
            raise Refusal(
                Kind.CONFLICT,
                "DATASET_CHANGED",
                f"{named}: expected {expected}, got {got}; {advice}",
            )
