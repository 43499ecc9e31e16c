"""One request's masks may take their share of the engine's time, and no more."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

masks = pytest.importorskip("predict.constraints.masks")

ROWS = 4


class Grammar:
    """A mask that takes so many CPU seconds, as a slow one of xgrammar's does."""

    def __init__(self, seconds: float = 0.0, foreseen: float = 0.0) -> None:
        self.seconds, self.predict_foreseen = seconds, foreseen
        self.predict_key = hash(("regex", id(self)))
        self.made = 0
        self.over = threading.Event()

    def make(self, bitmask: Any, index: int) -> None:
        self.made += 1
        end = time.thread_time() + self.seconds
        while time.thread_time() < end and not self.over.is_set():
            time.sleep(0)  # lets the others run, as xgrammar does
        bitmask[index].fill_(5)


def masks_of(guard: Any, *grammars: Grammar) -> list[int]:
    manager = SimpleNamespace(_grammar_bitmask=None)

    def original(manager: Any, requests: Any, ids: Any, drafts: Any) -> Any:
        if manager._grammar_bitmask is None:
            manager._grammar_bitmask = torch.zeros(ROWS, 2, dtype=torch.int32)
        bitmask = manager._grammar_bitmask
        for index, grammar in enumerate(grammars):
            masks.local.maker.fill(Grammar.make, grammar, bitmask, index)
        return bitmask.numpy()

    guard.original = original
    return [int(row[0]) for row in guard(manager, {}, ["a"], {})[: len(grammars)]]


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(masks, "spare", masks.Spare())
    monkeypatch.setattr(masks, "left_behind", [])
    masks.ended.clear()
    masks.slowest.clear()
    return masks.Guard(lambda: None)


def test_masks_in_time_are_made_as_ever(guard: Any) -> None:
    grammars = [Grammar(), Grammar(masks.LEAST_SECONDS / 2)]
    for _ in range(5):
        assert masks_of(guard, *grammars) == [5, 5]
    assert not any(map(masks.is_over, grammars))
    assert masks.left_behind == []
    assert masks.spare.left() == pytest.approx(masks.SPARE_SECONDS)


def test_only_what_is_not_quick_is_charged(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    charged: list[float] = []
    charge = masks.charge

    def noted(grammar: Any, seconds: float) -> None:
        charged.append(seconds)
        charge(grammar, seconds)

    monkeypatch.setattr(masks, "charge", noted)
    grammar = Grammar()
    for seconds, count in ((0.0, 1), (0.0, 1), (0.003, 2), (0.0, 3)):
        grammar.seconds = seconds
        masks_of(guard, grammar)
        assert len(charged) == count


def test_a_mask_beyond_its_allowance_ends_its_request_and_no_other(guard: Any) -> None:
    slow = Grammar(1.0)
    good = [Grammar(), Grammar()]
    start = time.thread_time()
    assert masks_of(guard, good[0], slow, good[1]) == [5, -1, 5]
    assert time.thread_time() - start < 0.5
    assert masks.is_over(slow)
    assert not any(map(masks.is_over, good))
    assert slow.predict_key in masks.ended
    assert [one.made for one in good] == [1, 1]  # the row before is kept
    assert masks_of(guard, *good) == [5, 5]  # while the thread left behind still works
    assert len(masks.left_behind) == 1
    slow.over.set()  # or its second of CPU, which at idle priority may take half a minute
    masks.left_behind[0].join(30)
    assert masks_of(guard, *good) == [5, 5]


def test_what_is_slow_again_and_again_is_expected_within_a_share(guard: Any) -> None:
    grammar = Grammar(0.8 * masks.SHARE_SECONDS)
    for _ in range(5):
        assert masks_of(guard, grammar) == [5]
    assert not masks.is_over(grammar)
    assert masks.expected(grammar) == masks.SHARE_SECONDS


def test_masks_that_are_slower_than_a_share_use_the_burst_up(guard: Any) -> None:
    grammar = Grammar(1.2 * masks.SHARE_SECONDS)
    steps = 0
    while not masks.is_over(grammar):
        masks_of(guard, grammar)
        steps += 1
        assert steps < 200
    assert steps > 2


def test_answers_of_one_constraint_that_get_slow_in_the_same_step_have_a_bound(
    guard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, others = [Grammar(0.02) for _ in range(ROWS - 2)], [Grammar(0.02), Grammar()]
    for one in answers:
        one.predict_key = answers[0].predict_key
    monkeypatch.setattr(masks, "STEP_SECONDS", 0.03)
    assert masks_of(guard, answers[0], others[0], answers[1], others[1]) == [5, 5, -1, 5]
    assert not masks.ended
    assert masks_of(guard, answers[0], *others) == [5, 5, 5]  # the next step has its own


def test_many_constraints_that_get_slow_in_the_same_step_have_a_bound_together(
    guard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "SPARE_FRACTION", 0.0)
    masks.spare.seconds = 0.1
    slow = [Grammar(10) for _ in range(ROWS - 1)]  # which is far from over when it is noticed
    try:
        assert masks_of(guard, *slow, Grammar()) == [-1, -1, -1, 5]
    finally:
        for one in slow:
            one.over.set()
    # The first has the whole budget, and those behind it next to nothing.
    assert masks.spare.seconds < 0.02
    assert [one.predict_key in masks.ended for one in slow] == [True, False, False]
    assert sum(one.made for one in slow) == len(slow)


def test_masks_that_were_foreseen_may_take_longer(guard: Any) -> None:
    grammar = Grammar(1.5 * masks.SHARE_SECONDS, foreseen=1.5 * masks.SHARE_SECONDS)
    for _ in range(3):
        assert masks_of(guard, grammar) == [5]
    assert masks.spare.left() == pytest.approx(masks.SPARE_SECONDS)


def test_bursts_have_a_bound_for_all_together(guard: Any) -> None:
    assert masks.allowance(Grammar()) == pytest.approx(masks.LEAST_SECONDS + masks.BURST_SECONDS)
    masks.spare.seconds = 0.0
    assert masks.allowance(Grammar()) < masks.LEAST_SECONDS + masks.BURST_SECONDS / 2


def test_beside_many_threads_left_behind_there_are_no_bursts(guard: Any) -> None:
    over = threading.Event()
    masks.left_behind += [threading.Thread(target=over.wait) for _ in range(masks.MOST_LEFT)]
    for thread in masks.left_behind:
        thread.start()
    assert masks.allowance(Grammar()) == masks.LEAST_SECONDS
    over.set()
    for thread in list(masks.left_behind):
        thread.join()
    assert masks.still_left() == 0
    assert masks.allowance(Grammar()) > masks.LEAST_SECONDS


def test_what_fails_in_vllm_fails_as_ever(guard: Any) -> None:
    def original(*_: Any) -> Any:
        raise KeyError("a")

    guard.original = original
    with pytest.raises(KeyError):
        guard(SimpleNamespace(), {}, ["a"], {})
    assert masks_of(guard, Grammar()) == [5]


def test_a_priority_that_cannot_be_lowered_ends_nothing(guard: Any) -> None:
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    masks.lower(ended.native_id, masks.LEFT_BEHIND)
    masks.lower(None, masks.LEFT_BEHIND)


def test_the_thread_that_is_left_behind_cannot_end_before_its_priority_is_lowered(
    guard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    maker = masks.Maker()
    monkeypatch.setattr(masks, "lower", lambda *_: locked.append(maker.lock.locked()))
    monkeypatch.setattr(masks, "allowance", lambda *_: -1.0)
    maker.grammar = Grammar()
    assert maker.abandon()
    assert locked == [True]
    maker.tasks.put(None)
