"""Merkle hashes and proofs against published vectors and against RFC 9162's own recursion."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import lru_cache

import pytest

from housecall import merkle

# Leaves, roots and proofs of the Certificate Transparency implementations' test data
# (transparency-dev/merkle testonly/constants.go, TestRefInclusionProof, TestRefConsistencyProof).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
L0 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
L1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
L4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
L01 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
L23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
L45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
L67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
L0123 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
L4567 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
INCLUSION = [
    (0, 1, []),
    (0, 2, [L1]),
    (1, 2, [L0]),
    (2, 3, [L01]),
    (1, 5, [L0, L23, L4]),
    (0, 8, [L1, L23, L4567]),
    (5, 8, [L4, L67, L0123]),
]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [L1, L23, L4567]),
    (2, 5, [L23, L4]),
    (6, 8, [L45, L67, L0123]),
]

SIZE = 130
"""Every tree up to here is tried: two levels past 32, both sides of 64 and 128."""


class Tree:
    """A tree that keeps complete subtrees only, as a ledger does."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.gets = 0
        for size, leaf in enumerate(leaves):
            for level, index, value in merkle.new_nodes(size, leaf, self.get):
                assert (level, index) not in self.nodes
                self.nodes[level, index] = value

    def get(self, level: int, index: int) -> bytes:
        self.gets += 1
        return self.nodes[level, index]


class Naive:
    """RFC 9162 section 2.1 word for word, over all leaves."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self.mth = lru_cache(maxsize=None)(self._mth)

    def _mth(self, begin: int, end: int) -> bytes:
        if end == begin:
            return hashlib.sha256().digest()
        if end - begin == 1:
            return hashlib.sha256(b"\x00" + self.leaves[begin]).digest()
        k = self.split(end - begin)
        pair = self.mth(begin, begin + k) + self.mth(begin + k, end)
        return hashlib.sha256(b"\x01" + pair).digest()

    @staticmethod
    def split(n: int) -> int:
        k = 1
        while k * 2 < n:
            k *= 2
        return k

    def path(self, m: int, begin: int, end: int) -> list[bytes]:
        if end - begin == 1:
            return []
        k = self.split(end - begin)
        if m < k:
            return [*self.path(m, begin, begin + k), self.mth(begin + k, end)]
        return [*self.path(m - k, begin + k, end), self.mth(begin, begin + k)]

    def subproof(self, m: int, begin: int, end: int, whole: bool) -> list[bytes]:
        if m == end - begin:
            return [] if whole else [self.mth(begin, end)]
        k = self.split(end - begin)
        if m <= k:
            return [*self.subproof(m, begin, begin + k, whole), self.mth(begin + k, end)]
        return [*self.subproof(m - k, begin + k, end, False), self.mth(begin, begin + k)]


ENTRIES = [b"entry %d" % number for number in range(SIZE)]
HASHES = [merkle.leaf_hash(entry) for entry in ENTRIES]
TREE = Tree(HASHES)
NAIVE = Naive(ENTRIES)
VECTOR_TREE = Tree([merkle.leaf_hash(leaf) for leaf in LEAVES])


def root_of(size: int) -> bytes:
    return merkle.root(size, TREE.get)


def accepts(verify: Callable[..., None], *arguments: object) -> bool:
    try:
        verify(*arguments)
    except merkle.ProofError:
        return False
    return True


def tampered(proof: list[bytes]) -> list[list[bytes]]:
    """The proof with every single byte changed, shortened, lengthened and reordered."""
    changed = []
    for at, value in enumerate(proof):
        for byte in range(len(value)):
            other = value[:byte] + bytes([value[byte] ^ 1]) + value[byte + 1 :]
            changed.append([*proof[:at], other, *proof[at + 1 :]])
        changed.append([*proof[:at], *proof[at + 1 :]])
        changed.append([*proof[:at], value, *proof[at:]])
        changed.append([*proof[:at], value[:-1], *proof[at + 1 :]])
        changed.append([*proof[:at], value + b"\x00", *proof[at + 1 :]])
    changed.append([*proof, bytes(32)])
    changed.append([bytes(32), *proof])
    if len(proof) > 1:
        changed.append(proof[::-1])
    return changed


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    assert merkle.root(size, VECTOR_TREE.get).hex() == ROOTS[size]
    assert Naive(LEAVES).mth(0, size).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "expected"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, expected: list[str]) -> None:
    proof = merkle.inclusion_proof(index, size, VECTOR_TREE.get)
    assert [value.hex() for value in proof] == expected
    assert Naive(LEAVES).path(index, 0, size) == proof
    leaf = merkle.leaf_hash(LEAVES[index])
    merkle.verify_inclusion(leaf, index, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new", "expected"), CONSISTENCY)
def test_published_consistency_proofs(old: int, new: int, expected: list[str]) -> None:
    proof = merkle.consistency_proof(old, new, VECTOR_TREE.get)
    assert [value.hex() for value in proof] == expected
    assert Naive(LEAVES).subproof(old, 0, new, True) == proof
    old_root, new_root = bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new])
    merkle.verify_consistency(old, new, old_root, new_root, proof)


def test_leaves_and_nodes_hash_apart() -> None:
    assert merkle.leaf_hash(b"x") == hashlib.sha256(b"\x00x").digest()
    left, right = bytes(32), bytes([1]) * 32
    assert merkle.node_hash(left, right) == hashlib.sha256(b"\x01" + left + right).digest()
    assert merkle.node_hash(left, right) != merkle.leaf_hash(left + right)


@pytest.mark.parametrize("size", range(SIZE + 1))
def test_root_and_every_inclusion_proof_of_a_size(size: int) -> None:
    root = root_of(size)
    assert root == NAIVE.mth(0, size)
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, TREE.get)
        assert proof == NAIVE.path(index, 0, size)
        merkle.verify_inclusion(HASHES[index], index, size, proof, root)


@pytest.mark.parametrize("new", range(1, SIZE + 1))
def test_every_consistency_proof_to_a_size(new: int) -> None:
    for old in range(1, new + 1):
        proof = merkle.consistency_proof(old, new, TREE.get)
        assert proof == NAIVE.subproof(old, 0, new, True)
        merkle.verify_consistency(old, new, root_of(old), root_of(new), proof)
    merkle.verify_consistency(0, new, merkle.EMPTY_ROOT, root_of(new), [])


def test_only_complete_subtrees_are_stored() -> None:
    expected = {(level, i) for level in range(8) for i in range(SIZE >> level)}
    assert set(TREE.nodes) == expected
    for level, index in expected:
        assert TREE.nodes[level, index] == NAIVE.mth(index << level, (index + 1) << level)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16, 17])
def test_no_tampered_inclusion_proof_passes(size: int) -> None:
    root = root_of(size)
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, TREE.get)
        for other in tampered(proof):
            assert not accepts(merkle.verify_inclusion, HASHES[index], index, size, other, root)
        wrong_leaf, wrong_root = HASHES[(index + 1) % SIZE], root_of(size + 1)
        assert not accepts(merkle.verify_inclusion, wrong_leaf, index, size, proof, root)
        assert not accepts(merkle.verify_inclusion, HASHES[index], index, size, proof, wrong_root)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 32, 33])
def test_no_wrong_index_or_size_passes_for_inclusion(size: int) -> None:
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, TREE.get)
        leaf = HASHES[index]
        for wrong in {-1, *range(2 * size)} - {index}:
            assert not accepts(merkle.verify_inclusion, leaf, wrong, size, proof, root_of(size))
        for wrong in {-1, *range(70)} - {size}:
            root = root_of(max(wrong, 0))
            assert not accepts(merkle.verify_inclusion, leaf, index, wrong, proof, root)


@pytest.mark.parametrize("new", [2, 3, 4, 5, 7, 8, 13, 16, 17])
def test_no_tampered_consistency_proof_passes(new: int) -> None:
    for old in range(1, new):
        proof = merkle.consistency_proof(old, new, TREE.get)
        roots = (root_of(old), root_of(new))
        for other in tampered(proof):
            assert not accepts(merkle.verify_consistency, old, new, *roots, other)
        assert not accepts(merkle.verify_consistency, old, new, roots[1], roots[1], proof)
        assert not accepts(merkle.verify_consistency, old, new, roots[0], roots[0], proof)


@pytest.mark.parametrize("new", [2, 3, 5, 8, 13, 17, 32, 33])
def test_no_wrong_size_passes_for_consistency(new: int) -> None:
    for old in range(1, new):
        proof = merkle.consistency_proof(old, new, TREE.get)
        for wrong in {-1, *range(new + 3)} - {old}:
            old_root = root_of(max(wrong, 0))
            if 0 <= wrong <= new and merkle.consistency_proof(wrong, new, TREE.get) == proof:
                continue
            assert not accepts(merkle.verify_consistency, wrong, new, old_root, root_of(new), proof)
        for wrong in {-1, *range(70)} - {new}:
            new_root = root_of(max(wrong, 0))
            assert not accepts(merkle.verify_consistency, old, wrong, root_of(old), new_root, proof)


def test_a_rewritten_history_is_found() -> None:
    rewritten = Tree([*HASHES[:2], merkle.leaf_hash(b"forged"), *HASHES[3:7]])
    new_root = merkle.root(7, rewritten.get)
    for old in range(3, 7):
        proof = merkle.consistency_proof(old, 7, rewritten.get)
        with pytest.raises(merkle.ProofError, match=r"root of the (old|new) size .: expected "):
            merkle.verify_consistency(old, 7, root_of(old), new_root, proof)


def test_a_proof_binds_size_and_root_only_together() -> None:
    """Why both come from one signed checkpoint: this shape fits the sizes 3 and 4."""
    proof = merkle.inclusion_proof(0, 3, TREE.get)
    merkle.verify_inclusion(HASHES[0], 0, 4, proof, root_of(3))
    assert not accepts(merkle.verify_inclusion, HASHES[0], 0, 4, proof, root_of(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 4, [], root_of(3)), "inclusion proof of 0 hashes: expected more for these sizes"),
        ((0, 1, [bytes(32)], root_of(1)), "inclusion proof of 1 hashes: expected fewer"),
        ((4, 4, [], root_of(4)), "leaf 4 cannot be in a tree of 4: expected 0 <= index < size"),
        ((0, 2, [b"short"], root_of(2)), "expected hashes of 32 bytes, got one of 5"),
        (
            (0, 1, [], root_of(1)),
            f"root of size 1 from leaf 0: expected {root_of(1).hex()}, got {HASHES[9].hex()}",
        ),
    ],
)
def test_inclusion_errors_say_what_was_expected(
    arguments: tuple[int, int, list[bytes], bytes], message: str
) -> None:
    with pytest.raises(merkle.ProofError) as caught:
        merkle.verify_inclusion(HASHES[9], *arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "roots", "proof", "message"),
    [
        ((5, 4), (5, 4), [], "a tree of 4 cannot continue one of 5: expected 0 <= old_size"),
        ((2, 4), (2, 4), [], "consistency proof of 0 hashes: expected more for these sizes"),
        ((3, 3), (3, 3), [bytes(32)], "consistency proof of 1 hashes: expected none for"),
        ((0, 3), (1, 3), [], f"root of the old size 0: expected {merkle.EMPTY_ROOT.hex()}, got "),
        ((3, 3), (3, 4), [], f"root of the unchanged size 3: expected {root_of(3).hex()}, got "),
        ((1, 2), (1, 2), [bytes(32)], f"root of the new size 2: expected {root_of(2).hex()}"),
    ],
)
def test_consistency_errors_say_what_was_expected(
    sizes: tuple[int, int], roots: tuple[int, int], proof: list[bytes], message: str
) -> None:
    with pytest.raises(merkle.ProofError) as caught:
        merkle.verify_consistency(*sizes, root_of(roots[0]), root_of(roots[1]), proof)
    assert message in str(caught.value)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_proof_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"leaf {index} is not in a tree of {size}"):
        merkle.inclusion_proof(index, size, TREE.get)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_no_consistency_proof_backwards(old: int, new: int) -> None:
    with pytest.raises(ValueError, match=f"no consistency proof from size {old} to {new}"):
        merkle.consistency_proof(old, new, TREE.get)


def test_no_tree_of_negative_size() -> None:
    with pytest.raises(ValueError, match="a tree cannot have -1 leaves"):
        merkle.root(-1, TREE.get)
    with pytest.raises(ValueError, match="a tree cannot have -1 leaves"):
        merkle.new_nodes(-1, HASHES[0], TREE.get)


def test_proofs_over_100_000_leaves_are_quick() -> None:
    tree = Tree([merkle.leaf_hash(b"%d" % number) for number in range(100_000)])
    tree.gets = 0
    proof = merkle.inclusion_proof(99_998, 100_000, tree.get)
    assert tree.gets <= 2 * 17
    best = min(
        _seconds(lambda: merkle.inclusion_proof(54_321, 100_000, tree.get)) for _ in "x" * 20
    )
    assert best < 0.001
    root = merkle.root(100_000, tree.get)
    merkle.verify_inclusion(merkle.leaf_hash(b"99998"), 99_998, 100_000, proof, root)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
