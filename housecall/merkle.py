"""Merkle tree hashes and proofs of the ledger, after RFC 9162 section 2.1 (SHA-256). Pure.

Storage, and who decides what is a checkpoint, are the caller's. A tree is read through
`get(level, index)`, the hash of the complete subtree over the leaves
`index * 2**level ... (index + 1) * 2**level - 1`; no other node ever needs to be kept, since a
complete subtree never changes once it is there.

A proof binds a leaf or an older tree to a *size and root taken together*: take both from one
verified checkpoint (`housecall.note`). With the root of another size a proof may still fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

Nodes = Callable[[int, int], bytes]
"""`get(level, index)`: the stored hash of a complete subtree, 32 bytes."""

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162 section 2.1.1)."""


class ProofError(ValueError):
    """A proof does not hold. The message says what was expected and what came."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of an entry's bytes as a leaf (32 bytes)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node over its two children (32 bytes each)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def new_nodes(size: int, leaf: bytes, get: Nodes) -> list[tuple[int, int, bytes]]:
    """Nodes `(level, index, hash)` to store when a leaf hash joins a tree of `size` leaves.

    The leaf itself comes first, as `(0, size, leaf)`; two nodes on average. Leaves appended in one
    batch need a `get` that also sees the nodes of the earlier ones.
    """
    _require_size(size)
    level, index, value = 0, size, leaf
    nodes = [(level, index, value)]
    while index & 1:
        value = node_hash(get(level, index - 1), value)
        level, index = level + 1, index >> 1
        nodes.append((level, index, value))
    return nodes


def root(size: int, get: Nodes) -> bytes:
    """Root of the tree over the first `size` leaves; `EMPTY_ROOT` when there are none."""
    _require_size(size)
    return _subtree(0, size, get) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, get: Nodes) -> list[bytes]:
    """PATH(index, D[size]) of RFC 9162 section 2.1.3.1, leaf's sibling first.

    Raises ValueError when the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}: expected 0 <= index < size")
    return list(_siblings(0, index, size, get))


def consistency_proof(old_size: int, new_size: int, get: Nodes) -> list[bytes]:
    """PROOF(old_size, D[new_size]) of RFC 9162 section 2.1.4.1.

    Empty when the sizes are equal and when the old tree is empty: there is nothing to prove.
    Raises ValueError when the old tree is not the smaller one.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(
            f"no consistency proof from size {old_size} to {new_size}: "
            "expected 0 <= old_size <= new_size"
        )
    if old_size in (0, new_size):
        return []
    level = _trailing_zeros(old_size)
    last = (old_size >> level) - 1
    proof = [] if last == 0 else [get(level, last)]
    proof.extend(_siblings(level, last, new_size, get))
    return proof


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf hash `leaf` is number `index` of the tree `size`, `root`.

    RFC 9162 section 2.1.3.2. Raises ProofError.
    """
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} cannot be in a tree of {size}: expected 0 <= index < size")
    _require_hashes([leaf, root, *proof])
    position, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError(_wrong_length("inclusion", "fewer", proof))
        if position & 1 or position == last:
            value = node_hash(sibling, value)
            position, last = _skip_unpaired(position, last)
        else:
            value = node_hash(value, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ProofError(_wrong_length("inclusion", "more", proof))
    _require_root(f"root of size {size} from leaf {index}", root, value)


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree `new_size`, `new_root` begins with the tree `old_size`, `old_root`.

    RFC 9162 section 2.1.4.2, and the cases that it leaves out: equal sizes have equal roots, and
    an empty tree is the beginning of any tree. Raises ProofError.
    """
    if not 0 <= old_size <= new_size:
        raise ProofError(
            f"a tree of {new_size} cannot continue one of {old_size}: "
            "expected 0 <= old_size <= new_size"
        )
    _require_hashes([old_root, new_root, *proof])
    if old_size in (0, new_size):
        _verify_trivial(old_size, new_size, old_root, new_root, proof)
        return
    old, new = _fold_consistency(old_size, new_size, old_root, proof)
    _require_root(f"root of the old size {old_size}", old_root, old)
    _require_root(f"root of the new size {new_size}", new_root, new)


def _verify_trivial(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    if proof:
        raise ProofError(_wrong_length("consistency", "none", proof))
    if old_size == 0:
        _require_root("root of the old size 0", EMPTY_ROOT, old_root)
    if old_size == new_size:
        _require_root(f"root of the unchanged size {new_size}", old_root, new_root)


def _fold_consistency(
    old_size: int, new_size: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Steps 1 to 6 of RFC 9162 section 2.1.4.2: the two roots that the proof leads to."""
    if not proof:
        raise ProofError(_wrong_length("consistency", "more", proof))
    shift = _trailing_zeros(old_size)
    position, last = (old_size - 1) >> shift, (new_size - 1) >> shift
    path = [old_root, *proof] if position == 0 else list(proof)
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError(_wrong_length("consistency", "fewer", proof))
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            position, last = _skip_unpaired(position, last)
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ProofError(_wrong_length("consistency", "more", proof))
    return old, new


def _skip_unpaired(position: int, last: int) -> tuple[int, int]:
    """Climb past the levels at which the last node has no sibling."""
    while position and not position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _siblings(level: int, index: int, size: int, get: Nodes) -> Iterator[bytes]:
    """Siblings of the node `level`, `index` and of its ancestors, upwards, in a tree of `size`."""
    for height in range(level, (size - 1).bit_length()):
        begin = ((index >> (height - level)) ^ 1) << height
        if begin < size:
            yield _subtree(begin, min(begin + (1 << height), size), get)


def _subtree(begin: int, end: int, get: Nodes) -> bytes:
    """Hash over the leaves `begin ... end - 1`, where `begin` is a multiple of a power of two that
    is not smaller than their number: folds the complete subtrees, the smallest (last) first."""
    level = _trailing_zeros(end - begin)
    value = get(level, (end >> level) - 1)
    end -= 1 << level
    while begin < end:
        level = _trailing_zeros(end - begin)
        value = node_hash(get(level, (end >> level) - 1), value)
        end -= 1 << level
    return value


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _require_size(size: int) -> None:
    if size < 0:
        raise ValueError(f"a tree cannot have {size} leaves: expected 0 or more")


def _require_hashes(values: Sequence[bytes]) -> None:
    """Without this, bytes could wander between two neighbours under one hash."""
    for value in values:
        if len(value) != HASH_SIZE:
            raise ProofError(f"expected hashes of {HASH_SIZE} bytes, got one of {len(value)}")


def _require_root(what: str, expected: bytes, got: bytes) -> None:
    if expected != got:
        raise ProofError(f"{what}: expected {expected.hex()}, got {got.hex()}")


def _wrong_length(kind: str, expected: str, proof: Sequence[bytes]) -> str:
    return f"{kind} proof of {len(proof)} hashes: expected {expected} for these sizes"
