"""Tokens that a client did not read in time come in pieces if they have log probabilities, and are
the same tokens."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from predict import unread
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.output_processor import RequestOutputCollector

NAMES = ("__init__", "put", "get", "get_nowait")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:  # afterwards they are vLLM's own again
        monkeypatch.setattr(RequestOutputCollector, name, getattr(RequestOutputCollector, name))
    unread.install()
    changed = RequestOutputCollector.put
    unread.install()
    assert RequestOutputCollector.put is changed


def output(token: int, *, logprobs: bool = True, answer: int = 0, last: bool = False) -> Any:
    """One token of an answer, as vLLM's engine gives it."""
    answered = CompletionOutput(
        index=answer,
        text=f"{token} ",
        token_ids=[token],
        cumulative_logprob=None,
        logprobs=[{}] if logprobs else None,
        finish_reason="stop" if last else None,
    )
    return RequestOutput("id", None, None, None, [answered], last)


def collector(kind: RequestOutputKind = RequestOutputKind.DELTA) -> Any:
    return RequestOutputCollector(kind, "id")


async def read(queue: Any) -> AsyncIterator[Any]:
    """As vLLM's `generate`."""
    finished = False
    while not finished:
        found = queue.get_nowait() or await queue.get()
        finished = found.finished
        yield found


def pieces(queue: Any) -> list[list[int]]:
    async def main() -> list[list[int]]:
        return [[*each.outputs[0].token_ids] async for each in read(queue)]

    return asyncio.run(main())


@pytest.mark.parametrize(("logprobs", "most"), [(True, unread.MOST), (False, 1000)])
def test_all_tokens_come_in_order(logprobs: bool, most: int) -> None:
    queue = collector()
    for token in range(1000):
        queue.put(output(token, logprobs=logprobs, last=token == 999))
    got = pieces(queue)
    assert [token for piece in got for token in piece] == [*range(1000)]
    assert max(map(len, got)) == most


def test_the_answers_to_one_prompt_count_together() -> None:
    queue = collector()
    for token in range(1000):
        queue.put(output(token, answer=token % 2, last=token == 999))

    async def main() -> list[list[int]]:
        found: list[list[int]] = [[], []]
        async for each in read(queue):
            assert sum(len(answer.token_ids) for answer in each.outputs) <= unread.MOST
            for answer in each.outputs:
                found[answer.index] += answer.token_ids
        return found

    assert asyncio.run(main()) == [[*range(0, 1000, 2)], [*range(1, 1000, 2)]]


def test_others_have_a_turn_between_two_pieces_and_what_comes_then_is_not_lost() -> None:
    queue = collector()
    for token in range(300):
        queue.put(output(token))
    turns = [0]

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            turns[0] += 1
            if turns[0] == 2:
                queue.put(output(300, last=True))

    async def main() -> list[int]:
        beside = asyncio.create_task(others())
        await asyncio.sleep(0)
        found: list[int] = []
        seen = -1
        async for each in read(queue):
            assert turns[0] > seen
            found += each.outputs[0].token_ids
            seen = turns[0]
        beside.cancel()
        return found

    assert asyncio.run(main()) == [*range(301)]


def test_no_piece_is_larger_for_events_of_several_tokens() -> None:
    queue = collector()
    for _ in range(20):
        several = output(5)
        several.outputs[0].token_ids = [5] * 40
        several.outputs[0].logprobs = [{}] * 40
        queue.put(several)
    queue.put(output(6, last=True))
    assert max(map(len, pieces(queue))) == 41


def test_an_error_comes_at_once() -> None:
    queue = collector()
    for token in range(500):
        queue.put(output(token))
    queue.put(ValueError("gone"))
    with pytest.raises(ValueError, match="gone"):
        pieces(queue)


def test_a_whole_answer_is_replaced_by_the_next() -> None:
    queue = collector(RequestOutputKind.CUMULATIVE)
    for token in range(500):
        queue.put(output(token, last=token == 499))
    assert pieces(queue) == [[499]]
