"""What the operator does meanwhile: people join, and some of them are shown out again.

Whoever stays offers models, so that the sites meet signers whom they have not seen.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from pathlib import Path

import grpc

from housecall import tokens
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb
from tests.faults import joining
from tests.faults.committee import Committee
from tests.faults.desk import PASSING, RETRY_S, Desk

PACE_S = 10.0


class Newcomers:
    """Olga lets them in; one thread."""

    def __init__(
        self,
        desks: dict[str, Desk],
        committee: Committee,
        folder: Path,
        *,
        choice: random.Random,
        stop: threading.Event,
    ) -> None:
        self._desks, self._committee, self._folder = desks, committee, folder
        self._choice, self._stop = choice, stop
        self._over = committee.over
        self.thread = threading.Thread(target=self._work, name="newcomers", daemon=True)

    def _work(self) -> None:
        number = 0
        while not self._over.wait(PACE_S * self._choice.uniform(0.3, 1.5)):
            number += 1
            with suppress(Refusal, grpc.RpcError):
                self._next(f"guest-{number}")

    def _next(self, name: str) -> None:
        olga = self._desks["olga"]
        token = joining.token(olga, name)
        if self._choice.random() < 0.3:
            token_id = tokens.token_id(tokens.read(token))
            olga.state(pb.JoinTokenRevoked(token_id=token_id, reason="not needed"))
        elif guest := self._enrol(token, name):
            self._desks[name] = guest
            if self._choice.random() < 0.5:
                said = pb.ParticipantRevoked(name=guest.identity.name, reason="left")
                olga.state(said)
            else:
                self._committee.offers.owners.append(guest)

    def _enrol(self, token: str, name: str) -> Desk | None:
        """Until they are in; None when it is over first."""
        while not self._over.wait(RETRY_S):
            try:
                return joining.desk(token, self._folder / name, self._stop)
            except Refusal as refusal:
                if refusal.kind not in PASSING:
                    raise
        return None
