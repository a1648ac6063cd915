"""The keys in the state folder: readable, and of the coordinator whose ledger the store holds.

The ledger's first entry introduces them: the signing key by its statement, the ledger's verifier
key by the digest of its text, as a subject. Ledgers that 0.1.0 began do not name the latter: there
only the signing key is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.adoption import prove
from coordinator.store import Reader, Store
from coordinator.store.databases import parse_url, place
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

if TYPE_CHECKING:
    from coordinator.founding import House
    from coordinator.settings import Settings

KEYS = ("ledger.key", "signing.key")
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    UnsupportedAlgorithm,
)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Refuses KEYS_UNREADABLE where what is read within from `path` is not what `init` wrote."""
    try:
        yield
    except _UNREADABLE as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise Refusal(
            Kind.NOT_READY,
            "KEYS_UNREADABLE",
            f"{path} cannot be read ({why}): check its rights, or restore it from the newest "
            "backup",
        ) from error


def read_key(path: Path) -> Ed25519PrivateKey:
    with readable(path):
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("expected an Ed25519 key")
    return key


def subjects(house: House) -> dict[str, str]:
    """What the first entry is about: the coordinator's signing key, and its ledger's key."""
    return {
        house.name: statement.digest(house.signing_key.public_key().public_bytes_raw()),
        house.ledger.origin: statement.digest(house.ledger.verifier_key.encode()),
    }


def foreign_file(reader: Reader, house: House) -> str:
    """The file that is not of the coordinator whose ledger this is, or nothing. A first entry that
    cannot be read is for the check of the store to name."""
    try:
        first = statement.unverified(reader.entry(0).envelope)
    except Refusal:
        return ""
    if not isinstance(first.predicate, pb.ParticipantEnrolled):
        return ""
    if first.predicate.name != house.name:
        return "coordinator.json"
    if first.predicate.signing_key != house.signing_key.public_key().public_bytes_raw():
        return "signing.key"
    origin = house.ledger.origin
    named = first.subjects.get(origin)
    return "ledger.key" if named and named != subjects(house)[origin] else ""


def check_keys(settings: Settings, house: House) -> None:
    """Refuses KEYS_FOREIGN; and STORE_EMPTY where the ledger that the keys are for is gone."""
    with contextlib.closing(_opened(settings)) as store, store.read() as reader:
        if not reader.tree_size():
            raise _gone(store.place)
        name = foreign_file(reader, house)
        if name:
            raise Refusal(
                Kind.NOT_READY,
                "KEYS_FOREIGN",
                f"{settings.state_dir / name} is not of the coordinator whose ledger is at "
                f"{store.place}: check database_url, or restore the file from the newest backup",
            )


def check_ca(settings: Settings, house: House, *, now: bool = True) -> None:
    """Refuses KEYS_UNREADABLE where nobody could be let in with the CA in the state folder; unless
    `now` counts, not for what expired."""
    folder, ca = settings.state_dir / "ca", house.authority
    why = f"{folder / 'issuing.key'} is not the key of the certificate in {folder / 'issuing.pem'}"
    if ca.fits:
        try:
            return prove(ca, house.trust_domain, now=now)
        except Refusal as refusal:
            why = f"issuing.pem and root.pem in {folder}: {refusal.message}"
    raise Refusal(
        Kind.NOT_READY, "KEYS_UNREADABLE", f"{why}: restore the files from the newest backup"
    )


def _opened(settings: Settings) -> Store:
    try:
        return Store(settings.store_url)
    except Refusal as refusal:
        if refusal.code != "STORE_EMPTY":
            raise
        raise _gone(place(parse_url(settings.store_url))) from refusal


def _gone(where: str) -> Refusal:
    return Refusal(
        Kind.NOT_READY,
        "STORE_EMPTY",
        f"the store at {where} holds no ledger, and this coordinator had one: check database_url; "
        "if the store is gone, `housecall-coordinator restore` the newest backup",
    )
