"""What a TLS connection needs of an identity folder, read without loading any cryptography.

`housecall.identity.Identity` is this and the signing key. Loading cryptography costs a command as
much time as its call, so only commands that sign do.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from housecall import proxy as proxies
from housecall.errors import Kind, Refusal
from housecall.proxy import Proxy
from housecall.rpc import CHANNEL_OPTIONS, RENEWAL, bounded, refusals

SERVER_NAME = "coordinator.housecall"
"""The DNS name in every coordinator's certificate: what the pinned root must have certified."""


TO_EXPLAIN = frozenset({"UNREACHABLE", "DEADLINE", "TLS_FAILED"})


@dataclass(frozen=True)
class Credentials:
    """An enrolled participant without its signing key. `address` is the coordinator's host:port,
    `verifier_key` the ledger's C2SP verifier key pinned at enrolment, `proxy` what it is dialled
    through."""

    name: str
    address: str
    verifier_key: str
    root_pem: bytes
    chain_pem: bytes
    tls_key_pem: bytes
    proxy: Proxy | None = field(default=None, kw_only=True)

    def connect(self) -> grpc.Channel:
        """A mutual-TLS channel to the coordinator."""
        return open_channel(
            self.address, self.root_pem, self.chain_pem, self.tls_key_pem, proxy=self.proxy
        )

    def refusals(self) -> contextlib.AbstractContextManager[None]:
        """Around calls on that channel: they raise Refusals that name the hop that failed."""
        return explained(self.address, self.proxy)


def open_channel(
    address: str,
    root_pem: bytes,
    chain_pem: bytes,
    key_pem: bytes,
    *,
    proxy: Proxy | None = None,
) -> grpc.Channel:
    """A mutual-TLS channel; the server must be a coordinator certified under `root_pem`."""
    credentials = grpc.ssl_channel_credentials(root_pem, key_pem, chain_pem)
    options = [
        *CHANNEL_OPTIONS,
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.enable_http_proxy", int(proxy is not None)),
        *(proxy.channel_options if proxy else ()),
    ]
    return bounded(grpc.secure_channel(address, credentials, options=options))


@contextlib.contextmanager
def explained(address: str, proxy: Proxy | None) -> Iterator[None]:
    """Refusals of calls to the coordinator at `address`. Where one got no answer through a proxy,
    the proxy is asked by a connection of our own which of the two it is."""
    try:
        with refusals(f"coordinator {address}"):
            yield
    except Refusal as refusal:
        if proxy is None or refusal.code not in TO_EXPLAIN:
            raise
        found = proxies.probe(proxy, address)
        text = f"{refusal.message} (through proxy {proxy.name}, which answers)"
        raise found or Refusal(refusal.kind, refusal.code, text) from None


def load(folder: Path, proxy: Proxy | None = None) -> Credentials:
    """To be dialled through `proxy`, else through the environment's (`housecall.proxy`). Refuses
    with NOT_ENROLLED where the folder holds no identity, with IDENTITY_DAMAGED where a part of it
    is missing."""
    try:
        facts = json.loads((folder / "identity.json").read_bytes())
        return Credentials(
            name=facts["name"],
            address=facts["address"],
            verifier_key=facts["verifier_key"],
            root_pem=(folder / "root.pem").read_bytes(),
            chain_pem=(folder / "chain.pem").read_bytes(),
            tls_key_pem=(folder / "tls.key").read_bytes(),
            proxy=proxies.chosen(facts["address"], proxy),
        )
    except FileNotFoundError as error:
        if (folder / "identity.json").exists():
            raise damaged(folder, missing(error)) from None
        raise Refusal(
            Kind.NOT_READY,
            "NOT_ENROLLED",
            f"no identity here (expected {error.filename}): ask the operator for a join token, "
            "then run `housecall enroll --token TOKEN` (a person) or "
            "`housecall-agent enroll --token TOKEN` (a site)",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> Refusal:
    return Refusal(
        Kind.INVALID,
        "IDENTITY_DAMAGED",
        f"the identity in {folder} is damaged ({error}); restore the folder from a backup; where "
        f"its tls.key and signing.key are good, {RENEWAL}; else ask the operator to revoke this "
        "name and for a new join token, move the folder away, and enrol again",
    )


def missing(error: FileNotFoundError) -> Exception:
    """The same without the system's words."""
    return ValueError(f"{Path(error.filename).name} is missing")
