"""Signed notes and checkpoints against the vectors of the Go implementation and of a real log."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from housecall import note
from housecall.note import Checkpoint, NoteError

# golang.org/x/mod/sumdb/note, note_test.go
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNATURE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
PETER_NOTE = f"{TEXT}\n{SIGNATURE}"

# Checkpoints that the log sum.golang.org published; the second one was also signed by a witness.
GO_LOG = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_CHECKPOINT = """\
go.sum database tree
6476701
mb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=

— sum.golang.org Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEyVnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=
"""  # noqa: E501
GO_WITNESSED = """\
go.sum database tree
15067302
gJyioq6dwR9n+NjEWORfYmH+ubeYm3kH42BBQ0bTpYI=

— sum.golang.org Az3grp1rvWOs5NKlr/xR4GLN/CDyzzakmt1o61uSxYKpK1SerqOP2ClbX/peKUZjYnyomH5Xz7GZG3TpB7OeKn4E2ww=
— test.example.com qTGhC/xIPQ0AXKHK6Y+9ypRfuvMZWPjRXM8NiOg5M1WREn07VQXyuIXM3NRNav3ieVFLUqDRK77PWDmL6w8w84UqeAw=
"""  # noqa: E501

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
NAME = "ledger.example/trial"
VERIFIER = note.verifier_key(NAME, KEY.public_key().public_bytes_raw())
ROOT = bytes(range(100, 132))


def peter() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(PETER_SECRET)[1:])


def signed(text: str) -> str:
    return note.sign_note(text, NAME, KEY)


def test_the_published_note_opens() -> None:
    assert note.open_note(PETER_NOTE, PETER) == TEXT


def test_the_published_key_gives_the_published_bytes() -> None:
    assert note.verifier_key("PeterNeumann", peter().public_key().public_bytes_raw()) == PETER
    assert note.sign_note(TEXT, "PeterNeumann", peter()) == PETER_NOTE


@pytest.mark.parametrize(
    ("text", "size", "root"),
    [
        (GO_CHECKPOINT, 6476701, "mb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk="),
        (GO_WITNESSED, 15067302, "gJyioq6dwR9n+NjEWORfYmH+ubeYm3kH42BBQ0bTpYI="),
    ],
)
def test_checkpoints_of_a_real_log_open(text: str, size: int, root: str) -> None:
    expected = Checkpoint("go.sum database tree", size, base64.b64decode(root))
    assert note.open_checkpoint(text, GO_LOG) == expected


@given(
    origin=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30),
    size=st.integers(0, 10**19 - 1),
    root=st.binary(min_size=32, max_size=32),
)
def test_what_was_signed_is_what_opens(origin: str, size: int, root: bytes) -> None:
    text = note.sign_checkpoint(origin, size, root, NAME, KEY)
    assert note.open_checkpoint(text, VERIFIER) == Checkpoint(origin, size, root)


def test_the_form_of_a_checkpoint() -> None:
    lines = note.sign_checkpoint("origin", 7, ROOT, NAME, KEY).split("\n")
    assert lines[:4] == ["origin", "7", base64.b64encode(ROOT).decode(), ""]
    assert lines[4].startswith(f"— {NAME} ")
    assert lines[5:] == [""]
    key_hash = bytes.fromhex(VERIFIER.split("+")[1])
    assert base64.b64decode(lines[4].split(" ")[2])[:4] == key_hash


@pytest.mark.parametrize("text", [PETER_NOTE, GO_CHECKPOINT])
def test_no_changed_character_passes(text: str) -> None:
    verifier = PETER if text is PETER_NOTE else GO_LOG
    for at, character in enumerate(text):
        for other in (chr(ord(character) ^ 1), chr(ord(character) ^ 0x20), ""):
            changed = text[:at] + other + text[at + 1 :]
            with pytest.raises(NoteError):
                note.open_note(changed, verifier)


def test_no_changed_verifier_key_passes() -> None:
    parts = {PETER[i:j] for i in range(len(PETER)) for j in range(i, len(PETER) + 1)} - {PETER}
    bumped = {PETER[:i] + chr(ord(PETER[i]) + 1) + PETER[i + 1 :] for i in range(len(PETER))}
    for verifier in parts | bumped:
        with pytest.raises(NoteError):
            note.open_note(PETER_NOTE, verifier)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("PeterNeumann", "verifier key: expected '<name>+<hash>+<base64>', got 'PeterNeumann'"),
        (PETER.replace("c74f20a3", "c74f20a4"), "expected the key hash c74f20a3, got c74f20a4"),
        (
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "verifier key of PeterNeumann: expected an Ed25519 key (0x01 and 32 bytes)",
        ),
        (PETER + "AAAA", "verifier key of PeterNeumann: expected an Ed25519 key"),
        (PETER + "=", "verifier key: expected canonical base64, got 'ARpc2QcU"),
        (PETER[:-1], "verifier key: expected standard base64, got 'ARpc2QcU"),
    ],
)
def test_verifier_key_errors(verifier: str, message: str) -> None:
    with pytest.raises(NoteError) as caught:
        note.open_note(PETER_NOTE, verifier)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "note: expected an empty line between text and signatures, found none"),
        (TEXT, "note: expected an empty line between text and signatures, found none"),
        (f"{TEXT}\n", "note: expected the last signature line to end with a newline"),
        (PETER_NOTE[:-1], "note: expected the last signature line to end with a newline"),
        (f"{TEXT}\n- x y\n", "signature line: expected '— <key name> <base64>', got '- x y'"),
        (f"{TEXT}\n— a+b AAAAAAAA\n", "key name 'a+b': expected one word without spaces and '+'"),
        (f"{TEXT}\n— Peter AAAA\n", "signature of Peter: expected more than 4 bytes, got 3"),
        (f"{TEXT}\n— Peter AAA\n", "signature of Peter: expected standard base64, got 'AAA'"),
        (f"{TEXT}\n— Peter AAB=\n", "signature of Peter: expected canonical base64, got 'AAB='"),
        (f"{TEXT}\n— Peter AAAAAAAA\n", "expected a signature of PeterNeumann+c74f20a3, found"),
        (f"{TEXT}\n{SIGNATURE * 101}", "note: expected at most 100 signatures, got 101"),
        (f"x{PETER_NOTE}", "note: the signature of PeterNeumann does not fit the text"),
        (f"\t{PETER_NOTE}", "note text: expected no control characters except newlines"),
        (f"\ud800{PETER_NOTE}", "note text: expected Unicode text, got lone surrogates"),
        (f"{'x' * 1_000_000}{PETER_NOTE}", "note: expected at most 1000000 characters, got 10002"),
        (f"\n\n{SIGNATURE}", "note text: expected lines, the last one ended by a newline"),
    ],
)
def test_note_errors(text: str, message: str) -> None:
    with pytest.raises(NoteError) as caught:
        note.open_note(text, PETER)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("origin\n7\n", "checkpoint: expected the lines origin, size and root, none of them empty"),
        ("\n7\nAAAA\n", "checkpoint: expected the lines origin, size and root, none of them empty"),
        (f"o\n07\n{GO_CHECKPOINT.splitlines()[2]}\n", "expected a decimal number, got '07'"),
        ("o\n-1\nAAAA\n", "checkpoint size: expected a decimal number, got '-1'"),
        ("o\n٣\nAAAA\n", "checkpoint size: expected a decimal number, got '٣'"),
        ("o\n7\nAAAA\n", "checkpoint root: expected 32 bytes, got 3"),
        ("o\n7\n****\n", "checkpoint root: expected standard base64, got '****'"),
    ],
)
def test_checkpoint_errors(text: str, message: str) -> None:
    with pytest.raises(NoteError) as caught:
        note.open_checkpoint(signed(text), VERIFIER)
    assert message in str(caught.value)


def test_extension_lines_are_read_past() -> None:
    root = base64.b64encode(ROOT).decode()
    text = signed(f"origin\n7\n{root}\nextension one\nextension two\n")
    assert note.open_checkpoint(text, VERIFIER) == Checkpoint("origin", 7, ROOT)
    with pytest.raises(NoteError, match="none of them empty"):
        note.open_checkpoint(signed(f"origin\n7\n{root}\n\nextension\n"), VERIFIER)


def test_a_false_signature_beside_the_true_one_refuses_the_note() -> None:
    forged = SIGNATURE.replace("x08go/ZJ", "x08go/ZK")
    with pytest.raises(NoteError, match="does not fit the text"):
        note.open_note(PETER_NOTE + forged, PETER)


def test_the_same_name_with_another_key_is_not_ours() -> None:
    text = note.sign_checkpoint("origin", 7, ROOT, NAME, OTHER)
    with pytest.raises(NoteError, match=r"expected a signature of ledger\.example/trial"):
        note.open_checkpoint(text, VERIFIER)


@pytest.mark.parametrize(
    ("origin", "size", "root", "name", "message"),
    [
        ("", 1, ROOT, NAME, "origin '': expected one line that is not empty"),
        ("a\nb", 1, ROOT, NAME, "origin 'a\\nb': expected one line that is not empty"),
        ("a", -1, ROOT, NAME, "size -1: expected 0 or more, at most 19 digits"),
        ("a", 1, ROOT[1:], NAME, "root: expected 32 bytes, got 31"),
        ("a", 1, ROOT, "", "key name '': expected one word without spaces and '+'"),
        ("a", 1, ROOT, "a b", "key name 'a b': expected one word without spaces and '+'"),
        ("a", 1, ROOT, "a\u2003b", "expected one word without spaces and '+'"),
        ("a\rb", 1, ROOT, NAME, "note text: expected no control characters except newlines"),
    ],
)
def test_nothing_malformed_is_signed(
    origin: str, size: int, root: bytes, name: str, message: str
) -> None:
    with pytest.raises(NoteError) as caught:
        note.sign_checkpoint(origin, size, root, name, KEY)
    assert message in str(caught.value)


def test_a_public_key_of_the_wrong_length() -> None:
    with pytest.raises(NoteError, match="public key of x: expected 32 bytes, got 31"):
        note.verifier_key("x", bytes(31))
