"""Who the site is, and its channel to the coordinator; both renewed without a restart."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc

from agent.disk import explained
from agent.journal_file import require_site
from housecall import client, tokens
from housecall.identity import Identity
from housecall.proxy import Proxy
from housecall.rpc import refusal_of
from housecall.v1 import statements_pb2 as pb

CHECK_EVERY_S = 60.0
OLD_CHANNEL_S = 60.0
log = logging.getLogger(__name__)


def enrol(token: str, folder: Path, proxy: Proxy | None = None) -> Identity:
    """Turn the text of a join token for a site into the identity in `folder`. The token of one site
    is not used up where the journal beside the folder is another's."""
    if (said := tokens.read(token)).role == pb.ROLE_SITE:
        require_site(folder.parent / "journal.sqlite", said.name)
    return client.enrol(token, folder, pb.ROLE_SITE, proxy=proxy)


class Uplink:
    """The site's identity and one channel for unary calls; both are replaced by a renewal.
    `skew_s` is how far this machine's clock was ahead of the coordinator's when last told: a
    clock that is off must neither renew without end nor too late."""

    def __init__(self, folder: Path, proxy: Proxy | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.skew_s = 0.0
        self._identity = Identity.load(folder, proxy)
        self._channel = client.connect(self._identity)
        self._stop = threading.Event()

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def channel(self) -> grpc.Channel:
        return self._channel

    def close(self) -> None:
        self._stop.set()
        self._channel.close()

    def renew(self) -> None:
        """A new certificate now. Calls that run on the old channel get time to end."""
        with self._lock:
            self._identity = client.renew(self._identity, self._folder)
            old, self._channel = self._channel, client.connect(self._identity)
        later = threading.Timer(OLD_CHANNEL_S, old.close)
        later.daemon = True
        later.start()
        log.info("certificate renewed", extra={"expires": self._expires()})

    def keep_renewed(self, renewed: Callable[[], None]) -> None:
        """Until `close`: renew when two thirds of the certificate's life are over, with jitter.
        Whatever a try ends with, the next one comes."""
        while not self._stop.wait(CHECK_EVERY_S * random.uniform(0.5, 1.0)):  # noqa: S311
            try:
                if self._identity.renewal_due(self.coordinator_now()):
                    self.renew()
                    renewed()
            except Exception as error:
                refusal = refusal_of(explained(error))
                log.warning("renewal failed", extra={"code": refusal.code})

    def coordinator_now(self) -> datetime:
        """By the coordinator's clock, which made the certificate."""
        return datetime.now(UTC) - timedelta(seconds=self.skew_s)

    def _expires(self) -> str:
        return self._identity.certificate.not_valid_after_utc.isoformat()
