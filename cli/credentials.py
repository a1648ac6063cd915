"""A person's certificate, renewed when that is due, without loading any cryptography otherwise.

When that is, is noted beside the certificate, so that it need not be parsed at every command.
"""

from __future__ import annotations

import time
from pathlib import Path

from housecall.credentials import damaged
from housecall.errors import Refusal

NOTE = "renew-after"


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

    try:
        chain = x509.load_pem_x509_certificates((folder / "chain.pem").read_bytes())
    except ValueError as error:
        raise damaged(folder, ValueError("chain.pem holds no certificates")) from error
    due = renew_after(chain[0]).timestamp()
    write_private(note, f"{version} {due}".encode())
    return due
