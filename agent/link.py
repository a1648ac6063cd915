"""The link to the coordinator: the one stream that the agent dials, kept up for good.

 1. A stream is dialled again whenever it ended, after the wait of `backoff.py`. Only a rewritten
    ledger ends the link.
 2. Every process has a name of its own, and the newest stream of a site wins. A process that
    another one took over from yields from then on: it comes back only while no other is
    connected, and once it is welcomed it yields no more.
 3. Who knows of something new (a certificate, a trusted key, a clock that was set) has it dialled
    at once: what made it wait may be over.

Threads: `run` is the link's own and reads; gRPC's thread writes. What is said on a stream is in
`session.py`.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from agent.backoff import FINAL, REASONS, SOON, Backoff
from agent.disk import explained
from agent.identity import Uplink
from agent.journal import Journal
from agent.linkstate import LinkState
from agent.orders import Orders
from agent.outbox import Outbox
from agent.progress import progress_of
from agent.recall import Recall
from agent.records import ENDED, Execution
from agent.session import Duties, Session
from housecall import client
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb

log = logging.getLogger(__name__)
_OURS = "ended here"


class Link:
    """Keeps a stream to the coordinator. `counts` gives running and waiting work, `preparing` all
    that is told of preparations."""

    def __init__(
        self,
        uplink: Uplink,
        journal: Journal,
        orders: Orders,
        outbox: Outbox,
        *,
        environment: Callable[[], pb.EnvironmentFacts],
        counts: Callable[[], tuple[int, int]],
        preparing: Callable[[], Sequence[fleet_pb2.Preparing]],
        heartbeat_s: float,
        max_skew_s: float,
        backoff: Backoff | None = None,
    ) -> None:
        self._uplink, self._outbox = uplink, outbox
        self._backoff = backoff or Backoff()
        self._stop = threading.Event()
        self._at_once = threading.Event()
        self._session: Session | None = None
        self._yields = False
        self.state = LinkState()
        self._duties = Duties(
            journal=journal,
            orders=orders,
            outbox=outbox,
            recall=Recall(journal, uplink),
            state=self.state,
            environment=environment,
            counts=counts,
            preparing=preparing,
            welcomed=self._welcomed,
            heartbeat_s=heartbeat_s,
            max_skew_s=max_skew_s,
            process=secrets.token_hex(8),
        )
        outbox.send = self._submit

    def run(self) -> None:
        """Until `close`: connect, serve the stream, wait, again."""
        while not self._stop.is_set():
            self.state.works()
            began = time.monotonic()
            code = self._serve()
            self.state.disconnected()
            self.state.rests()
            if code == "LEDGER_REWRITTEN":
                self.state.ended = True
                log.critical("link ended for good", extra={"code": code, "reason": FINAL[code]})
                return
            if not self._stop.is_set():
                wait = self._after(code, time.monotonic() - began)
                self._at_once.wait(self.state.waits(wait))  # 3

    def close(self) -> None:
        self._stop.set()
        self.reconnect()

    def reconnect(self) -> None:
        """End this stream, or the wait for one; `run` opens another one, with the newest
        certificate."""
        self._at_once.set()
        if (session := self._session) is not None:
            session.end()

    def clock_set(self, by_s: float) -> None:
        """This machine's clock was set: the difference to the coordinator's is another one, which
        the next Welcome tells exactly, and certificates may be good again."""
        self._uplink.skew_s += by_s
        self.reconnect()

    def wake(self) -> None:
        """There may be something new in the outbox."""
        if self.state.connected:
            self._outbox.pump()

    def progress(self, execution: Execution) -> None:
        """An ordered execution changed; while the link is down, the next Hello says it. Ends are
        said by the signed outcome alone."""
        session = self._session
        if session is not None and self.state.connected and execution.state not in ENDED:
            session.say(progress=progress_of(execution))

    def preparing(self, said: fleet_pb2.Preparing) -> None:
        """Where there is no stream, the next Hello says it."""
        if (session := self._session) is not None:
            session.say(preparing=said)

    def _after(self, code: str, lasted_s: float) -> float:
        """Seconds to stay away, and a line in the log for it."""
        if code == _OURS:
            return 0.0
        wait = self._backoff.after(code, lasted_s)
        level = logging.INFO if code in SOON else logging.WARNING
        extra = {"code": code, "reason": REASONS.get(code, ""), "retry_s": round(wait, 1)}
        log.log(level, "link down", extra=extra)
        return wait

    def _serve(self) -> str:
        """One stream to its end. Returns the code of the refusal that ended it, "" for none."""
        self._at_once.clear()
        identity = self._uplink.identity
        self._outbox.forget()
        session = Session(self._duties, identity.verifier_key, yields=self._yields)
        self._session = session
        if self._stop.is_set() or self._at_once.is_set():  # before there was a session to end
            session.end()
        try:
            with client.connect(identity) as channel, identity.refusals():
                session.serve(channel)
            return _OURS if session.ended else ""
        except Refusal as refusal:
            return _OURS if session.ended else self._ended(refusal)
        except Exception as error:
            return self._ended(refusal_of(explained(error)))
        finally:
            self._session = None

    def _ended(self, refusal: Refusal) -> str:
        code = refusal.code
        self._yields = self._yields or code == "SUPERSEDED"  # 2
        if code not in REASONS and refusal.kind in (Kind.UNAUTHENTICATED, Kind.NOT_ALLOWED):
            code = "UNAUTHENTICATED" if refusal.kind is Kind.UNAUTHENTICATED else "NOT_ALLOWED"
        if not self._stop.is_set():
            self.state.problem = "; ".join(filter(None, (str(refusal), self._clock_hint(code))))
        return code

    def _clock_hint(self, code: str) -> str:
        """An expired certificate that is good by this machine's clock: one of the clocks is off."""
        until = self._uplink.identity.certificate.not_valid_after_utc
        now = datetime.now(UTC)
        if code != "CERTIFICATE_EXPIRED" or now >= until:
            return ""
        return (
            f"by this machine's clock, which says {now:%Y-%m-%d %H:%M} UTC, this site's "
            f"certificate is good until {until:%Y-%m-%d %H:%M}: check the clock first"
        )

    def _welcomed(self, skew_s: float) -> None:
        self._yields = False  # 2
        self._uplink.skew_s = skew_s

    def _submit(self, envelope: bytes) -> bool:
        session = self._session
        if session is not None:
            session.submit(envelope)
        return session is not None
