"""Turns: one each, over and over; and what is there at the end is still given out."""

from __future__ import annotations

import threading

from coordinator.turns import Turns


def test_one_each_and_ones_own_in_their_order() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        assert turns.put(item[0], item)
    taken = [turns.take() for _ in range(2)]
    assert turns.put("d", "d1"), "comes before a's third"
    taken += [turns.take_at_once() for _ in range(5)]
    assert taken == ["a1", "b1", "c1", "a2", "d1", "c2", "a3"]
    assert turns.take_at_once() is None


def test_whoever_has_more_waits_for_who_came_meanwhile() -> None:
    turns: Turns[str] = Turns()
    turns.put("a", "a1")
    turns.put("a", "a2")
    assert turns.take() == "a1"
    turns.put("b", "b1")
    assert [turns.take(), turns.take()] == ["b1", "a2"]


def test_the_end_comes_after_what_is_there() -> None:
    turns: Turns[str] = Turns()
    taken: list[str | None] = []
    taker = threading.Thread(target=lambda: taken.extend([turns.take(), turns.take()]))
    taker.start()
    turns.put("a", "a1")
    turns.end()
    assert not turns.put("a", "late")
    taker.join(20)
    assert taken == ["a1", None]
