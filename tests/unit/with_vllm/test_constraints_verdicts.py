"""A constraint is tried once, and whatever happens to the process that tries it, a request is
answered."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from predict.constraints import categories, child, rewriting

from deploy.paths import ROOT
from tests.support import quick_trials
from tests.support.quick_trials import HEAVY, IMPOSSIBLE

xgrammar = pytest.importorskip("xgrammar")
verdicts = pytest.importorskip("predict.constraints.verdicts")
exceptions = pytest.importorskip("vllm.exceptions")
StructuredOutputsParams = pytest.importorskip("vllm.sampling_params").StructuredOutputsParams

VOCABULARY = ["</s>", *map(chr, range(32, 127)), "ab", "abc", "true", '{"', '":']
OURS = child.COMMAND
QUICK = (OURS[0], "-m", quick_trials.__name__)

Scene = Callable[[Any], Coroutine[Any, Any, None]]


def regex(text: str) -> Any:
    return StructuredOutputsParams(regex=text)


Shared = tuple[asyncio.Runner, Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """An event loop, and in it Verdicts whose process is a real one with a quick judge, for a small
    vocabulary."""
    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    setup = {"tokenizer": info.serialize_json(), "separators": None}

    async def begin() -> Any:
        return verdicts.Verdicts(None)

    async def end(taken: Any) -> None:
        taken.end()
        await taken.child.end()

    with pytest.MonkeyPatch.context() as patched, asyncio.Runner() as runner:
        patched.setattr(verdicts, "tokenizer_setup", lambda _: setup)
        patched.setattr(child, "COMMAND", QUICK)
        patched.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'packages'}")
        taken = runner.run(begin())
        yield runner, taken
        runner.run(end(taken))


@pytest.fixture
def play(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], None]:
    """Runs a scene with Verdicts that know nothing yet; their process may be that of the scene
    before."""
    runner, taken = shared
    monkeypatch.setattr(taken, "known", verdicts.Recent(verdicts.MOST_KEPT))
    monkeypatch.setattr(taken, "rewritten", verdicts.Recent(verdicts.MOST_REWRITTEN))
    monkeypatch.setattr(taken, "numbers", itertools.count())
    return lambda scene: runner.run(scene(taken))


async def busy(taken: Any, text: str) -> None:
    with pytest.raises(exceptions.GracefulHTTPError) as error:
        await taken.check(regex(text))
    assert error.value.http_status == HTTPStatus.SERVICE_UNAVAILABLE


async def killed(taken: Any) -> None:
    taken.child.process.kill()
    await taken.listening


def test_a_verdict_is_kept_and_a_process_that_died_is_started_again(
    play: Callable[[Scene], None],
) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        with pytest.raises(verdicts.RefusedConstraintError, match="cannot be followed"):
            await taken.check(regex(IMPOSSIBLE[0]))
        first = taken.child
        await killed(taken)
        await taken.check(regex("a+"))
        with pytest.raises(verdicts.RefusedConstraintError, match="cannot be followed"):
            await taken.check(regex(IMPOSSIBLE[0]))
        assert taken.child is first
        await taken.check(regex("b+"))
        assert taken.child is not first

    play(scene)


def test_an_ordinary_schema_is_one_question_and_later_none(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its first request waits for, where the process is there: no start, one answer."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        asked = Mock(side_effect=taken.child.ask)
        monkeypatch.setattr(taken.child, "ask", asked)
        monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=AssertionError("a start")))
        await taken.check(StructuredOutputsParams(json=schema))
        assert asked.call_count == 1
        later = taken.check(StructuredOutputsParams(json={**schema}))
        with pytest.raises(StopIteration):  # it ends without a turn of the event loop
            later.send(None)
        assert asked.call_count == 1

    play(scene)


def test_a_process_that_dies_at_it_is_a_503(play: Callable[[Scene], None]) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        asked = asyncio.create_task(busy(taken, HEAVY))
        while not taken.waiting:
            await asyncio.sleep(0.01)
        await killed(taken)
        await asked
        assert taken.asked == taken.waiting == {}

    play(scene)


def test_a_process_that_cannot_start_is_a_503_until_it_can(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("b+"))
        await killed(taken)
        for error in (OSError(24, "EMFILE"), ConnectionError()):
            with monkeypatch.context() as patched:
                patched.setattr(subprocess, "Popen", Mock(side_effect=error))
                await busy(taken, "a+")
        await taken.check(regex("a+"))

    play(scene)


def test_a_process_nobody_understands_is_ended_and_another_one_asked(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        with monkeypatch.context() as patched:
            patched.setattr(taken, "_heard", json.loads)  # a TypeError
            await busy(taken, "b+")
        assert taken.child.process.returncode is not None
        await taken.check(regex("b+"))

    play(scene)


def test_a_client_that_leaves_does_not_take_its_verdict_along(
    play: Callable[[Scene], None],
) -> None:
    async def scene(taken: Any) -> None:
        leaves = asyncio.create_task(taken.check(regex("a+")))
        await asyncio.sleep(0)
        stays = asyncio.create_task(taken.check(regex("a+")))
        await asyncio.sleep(0)
        leaves.cancel()
        await stays
        assert len(taken.known) == 1

    play(scene)


def test_a_refusal_that_may_be_due_to_the_machine_is_not_kept(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(taken: Any) -> None:
        heard = taken._heard
        monkeypatch.setattr(taken, "_heard", lambda said: heard({**said, "keep": False}))
        for _ in range(2):
            with pytest.raises(verdicts.RefusedConstraintError):
                await taken.check(regex(IMPOSSIBLE[0]))
        assert next(taken.numbers) == 2
        assert not taken.known

    play(scene)


def test_a_refusal_may_be_kept_for_a_time(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(taken: Any) -> None:
        heard, seconds = taken._heard, [60.0]
        kept = lambda said: heard({**said, "keep_seconds": seconds[0]})  # noqa: E731
        monkeypatch.setattr(taken, "_heard", kept)
        for _ in range(2):
            with pytest.raises(verdicts.RefusedConstraintError):
                await taken.check(regex(IMPOSSIBLE[0]))
        assert next(taken.numbers) == 1
        seconds[0] = -1.0
        for _ in range(2):
            with pytest.raises(verdicts.RefusedConstraintError):
                await taken.check(regex(IMPOSSIBLE[1]))
        assert next(taken.numbers) == 4

    play(scene)


def test_a_neighbour_s_new_constraint_is_tried_beside_many_heavy_ones(
    play: Callable[[Scene], None],
) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        heavy = [asyncio.create_task(taken.check(regex(f"{HEAVY}{n}"))) for n in range(64)]
        while len(taken.waiting) < len(heavy):
            await asyncio.sleep(0.01)
        await taken.check(regex("b+"))
        assert taken.waiting  # the heavy ones are still at it
        for one in heavy:
            one.cancel()
        await asyncio.gather(*heavy, return_exceptions=True)
        await killed(taken)  # which the next scene would wait for

    play(scene)


def test_the_engine_is_told_whatever_the_client_says(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "COMMAND", OURS)

    async def scene(taken: Any) -> None:
        seen: list[Any] = []

        async def add_request(_: str, __: Any, params: Any) -> None:
            seen.append(params.extra_args)

        engine = SimpleNamespace(vllm_config=None, add_request=add_request)
        installed = verdicts.install(engine)
        heard = installed._heard
        installed._heard = lambda said: heard({**said, "mask_seconds": 0.007})
        lies = {verdicts.EXTRA: "a", "b": 1}
        for constraint in (regex("a+"), StructuredOutputsParams(json_object=True)):
            params = SimpleNamespace(structured_outputs=constraint, extra_args=lies, n=100)
            await engine.add_request("1", "a", params)
        installed.end()
        if installed.child is not None:
            await installed.child.end()
        assert seen == [{verdicts.EXTRA: 0.007, "b": 1}, {verdicts.EXTRA: 0.0, "b": 1}]

    play(scene)


@pytest.mark.parametrize(("seconds", "most"), [(0.08, 12), (0.0001, 128), (2.0, 1)])
def test_a_slow_constraint_is_for_few_answers(seconds: float, most: int) -> None:
    verdicts.check_answers(seconds, most)
    if seconds > 0.01:
        with pytest.raises(exceptions.VLLMValidationError, match=f"at most {most} is allowed"):
            verdicts.check_answers(seconds, most + 1)


@pytest.mark.parametrize(
    "name",
    ["regex", "json", "structural_tag"],
)
def test_what_xgrammar_cannot_read_is_rewritten_wherever_it_is(
    play: Callable[[Scene], None], name: str
) -> None:
    pattern = r"[\p{Nd}]{2}"
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    tag = {"type": "structural_tag", "format": {"type": "json_schema", "json_schema": schema}}
    escaped = pattern if name == "regex" else json.dumps(pattern)[1:-1]
    given = {"regex": pattern, "json": json.dumps(schema), "structural_tag": json.dumps(tag)}
    params = StructuredOutputsParams(**{name: given[name]})

    async def scene(taken: Any) -> None:
        await taken.check(params)
        assert r"\u{660}-\u{669}" in getattr(params, name).replace("\\\\", "\\")
        with pytest.raises(verdicts.RefusedConstraintError, match="general category"):
            await taken.check(regex(r"\p{Greek}"))
        looking = StructuredOutputsParams(**{name: given[name].replace(escaped, "(?=[ab])[ac]")})
        await taken.check(looking)
        if name == "regex":
            assert (looking.regex, looking.grammar) == (None, 'root ::= [a] s1\ns1 ::= ""\n')
        else:
            assert '"pattern": "a"' in getattr(looking, name)
        with pytest.raises(verdicts.RefusedConstraintError, match="'structured_outputs' has look"):
            await taken.check(regex(r"(?=.*\d).{8,5000}"))

    play(scene)


def test_other_words_and_their_refusal_are_one_question_and_later_none(
    play: Callable[[Scene], None],
) -> None:
    async def scene(taken: Any) -> None:
        first, second = regex(r"\bab?"), regex(r"\bab?")
        await taken.check(first)
        for later in (second, first):  # the first as the request's next prompt has it
            with pytest.raises(StopIteration):  # it ends without a turn of the event loop
                taken.check(later).send(None)
        assert second.grammar == first.grammar == "root ::= [a] s1\ns1 ::= [b]?\n"
        assert second.regex is first.regex is None
        for _ in range(2):
            with pytest.raises(verdicts.RefusedConstraintError, match="general category"):
                await taken.check(regex(r"\p{Greek}"))
        assert next(taken.numbers) == 2

    play(scene)


def test_few_texts_in_other_words_are_kept(play: Callable[[Scene], None]) -> None:
    async def scene(taken: Any) -> None:
        taken.rewritten.most = 2
        for letter in "abc":
            await taken.check(regex(rf"\b{letter}"))
        assert len(taken.rewritten) == 2

    play(scene)


def test_the_event_loop_never_waits_for_rewriting(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not here, but in the other process."""
    monkeypatch.setattr(rewriting, "in_other_words", Mock(side_effect=AssertionError("here")))

    async def scene(taken: Any) -> None:
        await taken.check(regex(r"\bb"))

    play(scene)


def test_other_words_longer_than_a_pipe_are_whole(play: Callable[[Scene], None]) -> None:
    schema = {"type": "string", "pattern": r"\p{L}" * categories.MOST}
    params = StructuredOutputsParams(json=schema)

    async def scene(taken: Any) -> None:
        await taken.check(params)
        assert len(params.json) > 65536
        assert json.loads(params.json)["pattern"].startswith(r"[\u{41}-\u{5A}\u{")

    play(scene)


def test_a_process_that_dies_is_replaced_though_its_fork_goes_on(
    play: Callable[[Scene], None],
) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        asked = asyncio.create_task(busy(taken, HEAVY))
        died = taken.child.process.pid
        while not (forks := Path(f"/proc/{died}/task/{died}/children").read_text().split()):
            await asyncio.sleep(0.01)
        fork = int(forks[0])
        while os.readlink(f"/proc/{fork}/fd/2") != os.devnull:  # as 0 and 1 before it
            await asyncio.sleep(0.01)
        os.kill(fork, signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):  # or the fork's end, which does not come
                await killed(taken)
                await asked
                await taken.check(regex("b+"))
        finally:
            os.kill(fork, signal.SIGKILL)

    play(scene)


def test_an_early_process_that_has_died_is_replaced(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(taken: Any) -> None:
        await taken.check(regex("a+"))
        await killed(taken)
        dead = child.Child()
        dead.process.kill()
        monkeypatch.setattr(child, "early", [dead])
        await taken.check(regex("b+"))
        assert taken.child is not dead
        assert dead.process.returncode is not None

    play(scene)
