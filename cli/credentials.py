"""What a TLS connection needs of a person's identity folder, read without any cryptography.

`housecall.identity.Identity` reads the same files, and the signing key too; loading it costs as
much time as the call itself, so only commands that sign do. When the certificate is due for
renewal is noted beside it, so that it need not be parsed each time.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from housecall.errors import Kind, Refusal

NOTE = "renew-after"


@dataclass(frozen=True)
class Credentials:
    """The files of an identity folder, less the signing key."""

    name: str
    address: str
    verifier_key: str
    root_pem: bytes
    chain_pem: bytes
    tls_key_pem: bytes


def load(folder: Path) -> Credentials:
    """Refuses with NOT_ENROLLED where the folder holds no identity."""
    try:
        facts = json.loads((folder / "identity.json").read_bytes())
        return Credentials(
            name=facts["name"],
            address=facts["address"],
            verifier_key=facts["verifier_key"],
            root_pem=(folder / "root.pem").read_bytes(),
            chain_pem=(folder / "chain.pem").read_bytes(),
            tls_key_pem=(folder / "tls.key").read_bytes(),
        )
    except FileNotFoundError as error:
        raise Refusal(
            Kind.NOT_READY,
            "NOT_ENROLLED",
            f"no identity here (expected {error.filename}): ask the operator for a join token, "
            "then run `housecall enroll --token TOKEN`",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(
            Kind.INVALID, "IDENTITY_DAMAGED", f"the identity in {folder} is damaged: {error}"
        ) from error


def renew_if_due(folder: Path) -> str:
    """Renew the certificate when two thirds of its life are over. Gives what went wrong, ""
    otherwise: an old certificate is used as long as it lasts."""
    if time.time() < _renew_after(folder):
        return ""
    from housecall import client
    from housecall.identity import Identity

    try:
        client.renew(Identity.load(folder), folder)
    except Refusal as refusal:
        return f"the certificate could not be renewed: {refusal}"
    return ""


def _renew_after(folder: Path) -> float:
    """Seconds since the epoch; read off the certificate once for each certificate."""
    version = (folder / "chain.pem").stat().st_mtime_ns
    note = folder / NOTE
    try:
        known, when = note.read_text().split()
        if int(known) == version:
            return float(when)
    except (OSError, ValueError):
        pass
    from cryptography import x509

    from housecall.identity import renew_after, write_private

    chain = x509.load_pem_x509_certificates((folder / "chain.pem").read_bytes())
    due = renew_after(chain[0]).timestamp()
    write_private(note, f"{version} {due}".encode())
    return due
