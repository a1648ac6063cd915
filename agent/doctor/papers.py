"""The check of the identity: do keys and certificates fit each other, and the calendar."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.doctor.finding import Verdict, fail, ok, warn
from agent.doctor.scene import Scene
from housecall.errors import Kind
from housecall.identity import Identity, certificate_name, renew_after
from housecall.rpc import RENEWAL

_ANEW = (
    "ask the operator to revoke this name and for a new join token, move the identity folder away, "
    "and enrol again"
)


def identity(scene: Scene) -> Verdict:
    own = scene.identity
    chain = x509.load_pem_x509_certificates(own.chain_pem)
    problem = _misfit(own, chain)
    if problem:
        return fail(Kind.UNAUTHENTICATED, problem, f"restore the folder from a backup, or {_ANEW}")
    now, leaf = datetime.now(UTC), chain[0]
    first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now < first:
        what = f"the certificate is valid from {_day(first)}, this machine's clock says {_day(now)}"
        return fail(Kind.UNAUTHENTICATED, what, "set the clock")
    if now > last:
        what = f"the certificate of {own.name} ended {_day(last)}"
        return fail(Kind.UNAUTHENTICATED, what, f"is the clock right? Else {RENEWAL}")
    due = renew_after(leaf)
    if now > due:
        what = f"{own.name}, valid until {_day(last)}, due for renewal since {_day(due)}"
        return warn(what, "the agent renews it once it is connected: see the checks from dns on")
    return ok(f"{own.name}, valid until {_day(last)}, renewed from {_day(due)} on")


def _misfit(own: Identity, chain: list[x509.Certificate]) -> str:
    """What does not belong together; "" where all does."""
    key = load_pem_private_key(own.tls_key_pem, password=None)
    if key.public_key() != chain[0].public_key():
        return "tls.key is not the key of the certificate in chain.pem"
    if certificate_name(chain[0]) != own.name:
        return f"the certificate is of {certificate_name(chain[0])}, the identity of {own.name}"
    root = x509.load_pem_x509_certificate(own.root_pem)
    links = [*chain, root] if chain[-1] != root else chain
    for certificate, issuer in itertools.pairwise(links):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            return "the certificate does not lead to the CA in root.pem"
    return ""


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
