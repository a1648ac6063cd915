"""Signed checkpoints of the ledger: C2SP signed-note around C2SP tlog-checkpoint, Ed25519 only.

The form, line by line (https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint):

1. the text: origin, decimal size, base64 of the root, then extension lines (read past);
2. an empty line;
3. one or more signatures `— <key name> <base64(4-byte key hash || signature)>` over the text.

Signatures of other keys (witnesses) are allowed and ignored; a signature that claims to be of the
wanted key and is not refuses the note. Whose key and which origin to expect is the caller's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

_ED25519 = b"\x01"
_KEY_HASH_SIZE = 4
_PUBLIC_KEY_SIZE = 32
_ROOT_SIZE = 32
_MAX_CHARS = 1_000_000
_MAX_SIGNATURES = 100
_SIGNATURE_LINE = re.compile("— ([^ \n]+) ([A-Za-z0-9+/=]+)")
_VERIFIER_KEY = re.compile(r"([^ \n+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")
_DECIMAL = re.compile("0|[1-9][0-9]{0,18}")


class NoteError(ValueError):
    """A note, checkpoint or verifier key is malformed or not signed by the wanted key."""


@dataclass(frozen=True)
class Checkpoint:
    """What a log's key signed: its name, its number of entries and its Merkle root (32 bytes)."""

    origin: str
    size: int
    root: bytes


def verifier_key(name: str, public_key_raw: bytes) -> str:
    """`<name>+<hex key hash>+<base64(0x01 || key)>` of a 32-byte Ed25519 public key."""
    _require_name(name)
    if len(public_key_raw) != _PUBLIC_KEY_SIZE:
        raise NoteError(
            f"public key of {name}: expected {_PUBLIC_KEY_SIZE} bytes, got {len(public_key_raw)}"
        )
    key = base64.b64encode(_ED25519 + public_key_raw).decode()
    return f"{name}+{_key_hash(name, public_key_raw).hex()}+{key}"


def sign_checkpoint(
    origin: str, size: int, root: bytes, name: str, private_key: Ed25519PrivateKey
) -> str:
    """The checkpoint as a note signed under the key name `name` (by custom the origin itself)."""
    if not origin or "\n" in origin:
        raise NoteError(f"origin {origin!r}: expected one line that is not empty")
    if not 0 <= size < 10**19:
        raise NoteError(f"size {size}: expected 0 or more, at most 19 digits")
    if len(root) != _ROOT_SIZE:
        raise NoteError(f"root: expected {_ROOT_SIZE} bytes, got {len(root)}")
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    return sign_note(text, name, private_key)


def open_checkpoint(text: str, verifier: str) -> Checkpoint:
    """Check the signature by the key `verifier` (see `verifier_key`) and read the checkpoint.

    Raises NoteError. The origin is returned, not checked.
    """
    origin, size, root = _body_lines(open_note(text, verifier))
    if not _DECIMAL.fullmatch(size):
        raise NoteError(f"checkpoint size: expected a decimal number, got {size!r}")
    root_bytes = _decode("checkpoint root", root)
    if len(root_bytes) != _ROOT_SIZE:
        raise NoteError(f"checkpoint root: expected {_ROOT_SIZE} bytes, got {len(root_bytes)}")
    return Checkpoint(origin=origin, size=int(size), root=root_bytes)


def sign_note(text: str, name: str, private_key: Ed25519PrivateKey) -> str:
    """`text` (lines, each ended by a newline) with the signature of `name` appended."""
    _require_name(name)
    _require_text(text)
    public_key = private_key.public_key().public_bytes_raw()
    signature = _key_hash(name, public_key) + private_key.sign(text.encode())
    return f"{text}\n— {name} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, verifier: str) -> str:
    """The text of a note after its signature by `verifier` was checked. Raises NoteError."""
    name, key_hash, public_key = _parse_verifier(verifier)
    if len(note) > _MAX_CHARS:
        raise NoteError(f"note: expected at most {_MAX_CHARS} characters, got {len(note)}")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank:
        raise NoteError("note: expected an empty line between text and signatures, found none")
    text += "\n"
    _require_text(text)
    ours = [s for n, s in _parse_signatures(signatures) if n == name and s[:4] == key_hash]
    if not ours:
        raise NoteError(f"note: expected a signature of {name}+{key_hash.hex()}, found none")
    for signature in ours:
        _verify(name, public_key, signature[_KEY_HASH_SIZE:], text.encode())
    return text


def _verify(name: str, public_key: bytes, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise NoteError(f"note: the signature of {name} does not fit the text") from None


def _parse_signatures(block: str) -> list[tuple[str, bytes]]:
    """Key name and `key hash || signature` of each line, the unknown ones too."""
    if not block.endswith("\n"):
        raise NoteError("note: expected the last signature line to end with a newline")
    lines = block[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise NoteError(f"note: expected at most {_MAX_SIGNATURES} signatures, got {len(lines)}")
    return [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> tuple[str, bytes]:
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match:
        raise NoteError(f"signature line: expected '— <key name> <base64>', got {line[:100]!r}")
    name, encoded = match.groups()
    _require_name(name)
    signature = _decode(f"signature of {name}", encoded)
    if len(signature) <= _KEY_HASH_SIZE:
        raise NoteError(
            f"signature of {name}: expected more than {_KEY_HASH_SIZE} bytes, got {len(signature)}"
        )
    return name, signature


def _parse_verifier(verifier: str) -> tuple[str, bytes, bytes]:
    """Name, key hash and raw public key of a verifier key string."""
    match = _VERIFIER_KEY.fullmatch(verifier)
    if not match:
        raise NoteError(f"verifier key: expected '<name>+<hash>+<base64>', got {verifier[:100]!r}")
    name, key_hash, encoded = match.groups()
    _require_name(name)
    key = _decode("verifier key", encoded)
    if key[:1] != _ED25519 or len(key) != 1 + _PUBLIC_KEY_SIZE:
        raise NoteError(f"verifier key of {name}: expected an Ed25519 key (0x01 and 32 bytes)")
    expected = _key_hash(name, key[1:]).hex()
    if key_hash != expected:
        raise NoteError(f"verifier key of {name}: expected the key hash {expected}, got {key_hash}")
    return name, bytes.fromhex(key_hash), key[1:]


def _body_lines(text: str) -> tuple[str, str, str]:
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise NoteError(
            "checkpoint: expected the lines origin, size and root, none of them empty, "
            f"got {len(lines)} line(s)"
        )
    return lines[0], lines[1], lines[2]


def _key_hash(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:_KEY_HASH_SIZE]


def _decode(what: str, encoded: str) -> bytes:
    """Standard base64 in its one canonical spelling."""
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError(f"{what}: expected standard base64, got {encoded[:100]!r}") from None
    if base64.b64encode(decoded).decode() != encoded:
        raise NoteError(f"{what}: expected canonical base64, got {encoded[:100]!r}")
    return decoded


def _require_name(name: str) -> None:
    if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
        raise NoteError(f"key name {name!r}: expected one word without spaces and '+'")


def _require_text(text: str) -> None:
    if not text.endswith("\n") or text == "\n":
        raise NoteError("note text: expected lines, the last one ended by a newline")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoteError("note text: expected Unicode text, got lone surrogates") from None
    if any(ord(c) < 0x20 and c != "\n" for c in text):
        raise NoteError("note text: expected no control characters except newlines")
