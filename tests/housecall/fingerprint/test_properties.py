"""What a fingerprint depends on, and what it does not, over generated trees."""

from __future__ import annotations

from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from housecall.fingerprint import fingerprint
from tests.housecall.fingerprint.reference import reference
from tests.housecall.fingerprint.world import MIB, Tree, digest_of, plant

names = st.text(st.sampled_from("ab\n é"), min_size=1, max_size=3).filter(str.strip)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
contents = st.binary(max_size=20)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A few files with content somewhere, in which no file is also a folder."""
    found = draw(st.dictionaries(paths, contents, min_size=1, max_size=6))
    tree: Tree = {}
    for path, content in found.items():
        clash = any(f"{path}/".startswith(f"{p}/") or f"{p}/".startswith(f"{path}/") for p in tree)
        if not clash:
            tree[path] = content
    assume(any(tree.values()))
    return tree


@given(tree=trees(), threads=st.integers(1, 4), seed=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_creation_and_threads_do_not_matter(
    tree: Tree, threads: int, seed: object
) -> None:
    shuffled = list(tree.items())
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest_of(tree) == digest_of(dict(shuffled), threads=threads)


@given(tree=trees(), path=paths, change=st.data())
@settings(deadline=None)
def test_any_change_changes_the_digest(tree: Tree, path: str, change: st.DataObject) -> None:
    victim = change.draw(st.sampled_from(sorted(tree)), label="victim")
    content = tree[victim] or b""
    rest = {name: value for name, value in tree.items() if name != victim}
    free = not any(f"{path}/".startswith(f"{p}/") or f"{p}/".startswith(f"{path}/") for p in rest)
    changed: list[Tree] = [{**tree, victim: content + b"x"}, {**tree, victim: b"x" + content}]
    if any(rest.values()):
        changed += [rest, {**rest, victim: None}]
    if free and path != victim:
        changed += [{**rest, path: content}]
        if not path.startswith(f"{victim}/") and not victim.startswith(f"{path}/"):
            changed += [{**tree, path: b""}, {**tree, path: None}]
    before = digest_of(tree)
    for other in changed:
        if any(other.values()):
            assert digest_of(other) != before


@given(tree=trees(), change=st.data())
@settings(deadline=None)
def test_swapped_contents_change_the_digest(tree: Tree, change: st.DataObject) -> None:
    pair = st.lists(st.sampled_from(sorted(tree)), min_size=2, max_size=2, unique=True)
    assume(len(tree) > 1)
    one, two = change.draw(pair)
    swapped = {**tree, one: tree[two], two: tree[one]}
    assert (digest_of(swapped) == digest_of(tree)) == (tree[one] == tree[two])


def test_threads_do_not_matter_for_many_files_of_all_sizes(tmp_path: Path) -> None:
    tree: Tree = {f"{n % 7}/{n}": bytes([n % 251]) * (n * 37 % 70_000) for n in range(600)}
    tree |= {f"large/{n}": bytes([n]) * (3 * MIB + n) for n in range(6)}
    parts = {"data": plant(tmp_path / "data", tree)}
    digests = {fingerprint(parts, threads=count).digest for count in (1, 2, 3, 8)}
    assert digests == {reference(parts)}
