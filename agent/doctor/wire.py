"""Checks of the way to the coordinator, hop by hop: name, proxy, TCP, TLS.

Each is done by a socket of its own, before gRPC has a say, so that what fails is told from what
only suffers from it.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from agent.doctor.finding import Verdict, fail, ok
from agent.doctor.scene import Address, Scene
from agent.doctor.tunnel import dial
from housecall import proxy as proxies
from housecall.credentials import SERVER_NAME
from housecall.errors import Kind

NAME_SECONDS = 10.0
HOP_SECONDS = 10.0
# The client's preface of HTTP/2 and an empty SETTINGS frame (RFC 9113, 3.4): the server answers it
# only after it took our certificate.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_ASK = "see the check identity; else ask the operator"
_MIDDLE = "let the connection pass untouched: an exception in the firewall's TLS inspection"


class _TurnedAway(Exception):
    """The handshake was good for us, and not for the other end."""


def dns(scene: Scene) -> Verdict:
    """The name that this machine has to resolve: the coordinator's, or the proxy's."""
    target, whose = scene.coordinator, "coordinator"
    if scene.proxy is not None:
        target, whose = Address(scene.proxy.host, scene.proxy.port), "proxy"
    if target.is_literal:
        return ok(f"{whose} {target.host} is an address: no name to resolve")
    try:
        found = resolve(target)
    except TimeoutError:
        what = f"{whose} {target.host}: no answer within {NAME_SECONDS:g} s"
        return fail(Kind.UNAVAILABLE, what, "is the resolver in /etc/resolv.conf reachable?")
    except OSError as error:
        what = f"{whose} {target.host}: {error.strerror or error}"
        return fail(Kind.UNAVAILABLE, what, "check the name, and the resolver in /etc/resolv.conf")
    return ok(f"{whose} {target.host} is {', '.join(found)}")


def proxy(scene: Scene) -> Verdict:
    address = str(scene.coordinator)
    if scene.proxy is None and scene.has_proxy_set:
        return ok("set, but not used for this address (loopback or NO_PROXY)")
    if scene.proxy is None:
        return ok("none on the way")
    refusal = proxies.probe(scene.proxy, address, HOP_SECONDS)
    if refusal is not None:
        return fail(refusal.kind, refusal.message, "see the setting proxy, or who runs the proxy")
    return ok(f"{scene.proxy.name} opens a tunnel to {address}")


def tcp(scene: Scene) -> Verdict:
    address = scene.coordinator
    try:
        dial(address, scene.proxy, HOP_SECONDS).close()
    except TimeoutError:
        what = f"{address}: no answer within {HOP_SECONDS:g} s"
        return fail(Kind.UNAVAILABLE, what, f"let TCP to {address} out through the firewall")
    except ConnectionRefusedError:
        what = f"{address} refuses the connection"
        fix = "is the coordinator running there? Or a firewall refuses it"
        return fail(Kind.UNAVAILABLE, what, fix)
    except OSError as error:
        what = f"{address}: {error.strerror or error}"
        return fail(Kind.UNAVAILABLE, what, "check the address, the route and the firewall")
    return ok(f"{address} takes connections" + (" through the proxy" if scene.proxy else ""))


def tls(scene: Scene) -> Verdict:
    """A handshake with the site's own certificate, to the coordinator that the root certified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=scene.identity.root_pem.decode())
    folder = scene.settings.identity_dir
    context.load_cert_chain(folder / "chain.pem", folder / "tls.key")
    context.set_alpn_protocols(["h2"])
    try:
        version = _shake(scene, context)
    except ssl.SSLCertVerificationError as error:
        return _wrong_peer(scene, error)
    except _TurnedAway:
        what = f"{scene.coordinator} is of our CA, and hung up on this site's certificate"
        return fail(Kind.UNAUTHENTICATED, what, _ASK)
    except ssl.SSLError as error:
        return _turned_away(scene, error)
    except OSError as error:
        what = f"{scene.coordinator} hung up during the handshake: {error.strerror or error}"
        return fail(Kind.UNAVAILABLE, what, f"is it the coordinator? Else {_MIDDLE}")
    return ok(f"{version} with a coordinator of our CA, which takes this site's certificate")


def resolve(address: Address) -> list[str]:
    """The addresses of a name; the system's resolver has no deadline, so it gets a thread."""
    answers: queue.Queue[list[str] | OSError] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            answers.put(sorted({str(each[4][0]) for each in found}))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=NAME_SECONDS)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _shake(scene: Scene, context: ssl.SSLContext) -> str:
    """The version of TLS, once the server answered in HTTP/2."""
    with (
        dial(scene.coordinator, scene.proxy, HOP_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=SERVER_NAME) as shaken,
    ):
        version = str(shaken.version())
        with suppress(ConnectionError, ssl.SSLEOFError):
            shaken.sendall(_PREFACE)
        with suppress(ConnectionError, ssl.SSLEOFError):  # its alert, even where we could not send
            if shaken.recv(1):
                return version
    raise _TurnedAway


def _wrong_peer(scene: Scene, error: ssl.SSLCertVerificationError) -> Verdict:
    reason = error.verify_message
    if "not yet valid" in reason:
        what = f"the coordinator's certificate is not valid yet: {_shown(scene)}"
        return fail(Kind.UNAUTHENTICATED, what, "set this machine's clock")
    if "expired" in reason:
        what = f"the coordinator's certificate has expired: {_shown(scene)}"
        return fail(Kind.UNAUTHENTICATED, what, "is this machine's clock right? Tell the operator")
    what = f"not a coordinator of our CA ({reason}): {_shown(scene)}"
    fix = f"somebody breaks TLS open, or it is another address: {_MIDDLE}; else ask the operator"
    return fail(Kind.UNAUTHENTICATED, what, fix)


def _turned_away(scene: Scene, error: ssl.SSLError) -> Verdict:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "certificate" in reason or "unknown ca" in reason:
        what = f"{scene.coordinator} does not take this site's certificate: {reason}"
        return fail(Kind.UNAUTHENTICATED, what, _ASK)
    what = f"{scene.coordinator}: {reason}"
    return fail(Kind.UNAUTHENTICATED, what, f"is it the coordinator's port? Else {_MIDDLE}")


def _shown(scene: Scene) -> str:
    """Who showed what: read without believing any of it."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError, ValueError):
        with (
            dial(scene.coordinator, scene.proxy, HOP_SECONDS) as raw,
            blind.wrap_socket(raw, server_hostname=SERVER_NAME) as shaken,
        ):
            der = shaken.getpeercert(binary_form=True)
        if der:
            found = x509.load_der_x509_certificate(der)
            fingerprint = found.fingerprint(hashes.SHA256()).hex()[:16]
            issuer = found.issuer.rfc4514_string() or "nobody named"
            return (
                f"{scene.coordinator} shows a certificate issued by {issuer!r}, valid until "
                f"{found.not_valid_after_utc:%Y-%m-%d}, SHA-256 {fingerprint}…"
            )
    return f"{scene.coordinator} shows none"
