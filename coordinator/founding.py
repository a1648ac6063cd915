"""The coordinator's beginning: CA, keys, the ledger's first entries, the first operator's token.

Entry 0 introduces the coordinator's own keys (`keys.py`), signed by itself; entry 1 is the first
operator's join token, signed by that key. From then on everything goes through the rules.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.adoption import Adopted, adopt
from coordinator.authority import CertificateAuthority
from coordinator.caller import Caller, CallerRole
from coordinator.keys import KEYS, read_key, readable, subjects
from coordinator.ledger import Batch, Ledger
from coordinator.models import Participant
from coordinator.notary import Notary
from coordinator.settings import DATABASE, Settings
from coordinator.store import Store, Writer
from housecall import addresses, statement, tokens
from housecall.errors import Kind, Refusal
from housecall.identity import (
    check_trust_domain,
    private_pem,
    spiffe_id,
    write_private,
)
from housecall.v1 import statements_pb2 as pb

_MADE = (*KEYS, "ca", "coordinator.json", *(f"{DATABASE}{end}" for end in ("", "-wal", "-shm")))
"""In the state folder."""


@dataclass(frozen=True)
class House:
    """What `init` made, opened."""

    trust_domain: str
    address: str
    authority: CertificateAuthority
    ledger: Ledger
    signing_key: Ed25519PrivateKey

    @property
    def name(self) -> str:
        return f"spiffe://{self.trust_domain}/coordinator"


def found(
    settings: Settings, trust_domain: str, address: str, adopted: Adopted | None = None
) -> House:
    """Make everything that a coordinator needs, once; the CA is made too unless one is adopted.
    Refuses where there is a coordinator, a part of one, or a ledger; then, and where it fails,
    everything is as it was."""
    folder = settings.state_dir
    _require_nothing(folder)
    check_trust_domain(trust_domain)
    check_address(address)
    with (
        _whole_or_nothing(folder),
        contextlib.closing(Store.create(settings.store_url)) as store,
        store.failures(),
        contextlib.closing(store.writer()) as writer,
    ):
        writer.begin()
        if writer.tree_size():
            raise Refusal(
                Kind.CONFLICT,
                "LEDGER_NOT_EMPTY",
                f"the store at {store.place} holds a ledger already: point database_url at an "
                "empty one, or `restore` the coordinator that it is of",
            )
        house = _make(folder, trust_domain, address, adopted)
        _first_entry(writer, house)
        facts = {"trust_domain": trust_domain, "address": address}
        write_private(folder / "coordinator.json", json.dumps(facts).encode())
        writer.commit()
    return house


def check_address(address: str) -> None:
    """Refuses ADDRESS_INVALID where nobody could dial it."""
    try:
        addresses.split(address)
    except ValueError as error:
        raise Refusal(Kind.INVALID, "ADDRESS_INVALID", f"--address: {error}") from None


def check_operator(trust_domain: str, operator: str) -> None:
    """Refuses NAME_INVALID where an operator, or a federation, cannot have that name."""
    check_trust_domain(trust_domain)
    spiffe_id(trust_domain, "person", operator)


def open_house(settings: Settings) -> House:
    """Refuses NOT_FOUNDED where `init` has not been run, and KEYS_UNREADABLE where what it made is
    not whole."""
    path = settings.state_dir / "coordinator.json"
    if not path.exists() and not _parts(settings.state_dir):
        raise Refusal(
            Kind.NOT_READY,
            "NOT_FOUNDED",
            f"there is no coordinator in {settings.state_dir}: run `housecall-coordinator init`",
        )
    with readable(path):
        facts = json.loads(path.read_bytes())
        trust_domain, address = str(facts["trust_domain"]), str(facts["address"])
    return _open(settings.state_dir, trust_domain, address)


def operator_token(
    settings: Settings, house: House, operator: str, life: timedelta = timedelta(hours=24)
) -> str:
    """A join token for an operator, signed by the coordinator itself: for whoever has the machine.
    A coordinator that serves the same store meanwhile waits its turn."""
    expires_at = datetime.now(UTC) + life
    name = spiffe_id(house.trust_domain, "person", operator)
    new = tokens.new_token(name, pb.ROLE_OPERATOR, expires_at)
    caller = Caller(house.name, CallerRole.OPERATOR, "", expires_at)
    with (
        contextlib.closing(Store(settings.store_url)) as store,
        Notary(store, house.ledger) as notary,
    ):
        notary.append(new.envelope(house.signing_key), caller)
    leaf = house.authority.certify(new.csr, new.join_name, expires_at)
    chain = house.authority.chain_der(leaf)
    return tokens.write(new.certified(house.address, house.authority.root_der, chain))


def _parts(folder: Path) -> list[str]:
    """What is there of a coordinator, besides its `coordinator.json`."""
    names = (*KEYS, "ca", DATABASE)
    return [name for name in names if os.path.lexists(folder / name)]


def _require_nothing(folder: Path) -> None:
    if (folder / "coordinator.json").exists():
        raise Refusal(
            Kind.CONFLICT,
            "ALREADY_FOUNDED",
            f"{folder} holds a coordinator: serve that one, or `restore` its newest backup where "
            "its store is gone",
        )
    left = [name for name in _parts(folder) if name != DATABASE]
    if left:
        raise Refusal(
            Kind.CONFLICT,
            "ALREADY_FOUNDED",
            f"{folder} holds {', '.join(left)} of a coordinator, and no coordinator.json: restore "
            "that file from the newest backup, or choose another state_dir; where an `init` was "
            "cut off here, move what it left away",
        )


@contextlib.contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    """What is made in the folder within goes again where it fails; the folder too, if it was not
    there. Refuses SETTINGS_INVALID where it can be none."""
    new = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    made = [each for name in _MADE if not os.path.lexists(each := folder / name)]
    try:
        _make_folder(folder)
        yield
    except BaseException:
        for each in made:  # and nothing else: others may write to a folder that was there
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    each.unlink()
        for each in new:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise Refusal(
            Kind.INVALID,
            "SETTINGS_INVALID",
            f"state_dir: expected a folder, or a place for one, got {folder}, and there is a file "
            f"at {error.filename} or above it; name another",
        ) from error


def _make(folder: Path, trust_domain: str, address: str, adopted: Adopted | None) -> House:
    """The CA and the keys."""
    if adopted is None:
        CertificateAuthority.create(folder / "ca", trust_domain)
    else:
        adopt(folder / "ca", trust_domain, adopted)
    for name in KEYS:
        write_private(folder / name, private_pem(Ed25519PrivateKey.generate()))
    return _open(folder, trust_domain, address)


def _open(folder: Path, trust_domain: str, address: str) -> House:
    ledger = Ledger(f"{trust_domain}/ledger", read_key(folder / "ledger.key"))
    signing_key = read_key(folder / "signing.key")
    authority = _opened_ca(folder / "ca")
    return House(trust_domain, address, authority, ledger, signing_key)


def _opened_ca(folder: Path) -> CertificateAuthority:
    for name in ("issuing.key", "issuing.pem", "root.pem"):
        with readable(folder / name):
            (folder / name).read_bytes()
    with readable(folder):
        return CertificateAuthority(folder)


def _first_entry(writer: Writer, house: House) -> None:
    said = pb.ParticipantEnrolled(
        name=house.name,
        role=pb.ROLE_OPERATOR,
        signing_key=house.signing_key.public_key().public_bytes_raw(),
    )
    envelope = statement.sign(statement.build(said, subjects(house)), house.signing_key)
    batch = Batch(writer, [])
    batch.append(
        envelope,
        statement.unverified(envelope),
        signer=house.name,
        enrolment_index=0,
        thing_id=house.name,
        accepted_at=datetime.now(UTC),
    )
    batch.flush()
    writer.add(first_row(said))


def first_row(said: pb.ParticipantEnrolled) -> Participant:
    """What follows from entry 0: no token let the coordinator in."""
    return Participant(
        name=said.name,
        role=said.role,
        signing_key=said.signing_key,
        tls_key_digest=said.tls_key_digest,
        enrolled_index=0,
    )
