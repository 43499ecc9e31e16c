"""Tokenizes long prompts apart from the others, and no further than the model reads.

vLLM tokenizes the prompts of all requests in one thread, one after another, and checks a chat's
length afterwards: 900 KB take up to 1 s, in which no other request gets its prompt.

Promises: a long prompt waits only for other long ones; so do the prompts of a request that are long
together. A prompt that vLLM would refuse, because its texts and tools have more tokens than the
model reads, is refused before all of it is tokenized. A short one costs only a sum of lengths. A
renderer that is not Mistral's is left unchanged.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import msgspec

LONG = 16384  # characters; 2 to 12 ms
LONG_IDS = 4096
AT_A_CUT = 32  # tokens; more than a cut can add to a text

# For the chat being rendered: the most tokens its prompt may have, if vLLM refuses more.
_most: ContextVar[int | None] = ContextVar("most", default=None)
# For the texts of one request: whether they are long together.
_many: ContextVar[bool] = ContextVar("many", default=False)


def install(engine: Any) -> None:
    """`engine`: vLLM's client of its engine."""
    from vllm.renderers.mistral import MistralRenderer, safe_apply_chat_template

    renderer = engine.renderer
    if not isinstance(renderer, MistralRenderer):
        return
    apart = ThreadPoolExecutor(1, thread_name_prefix="long prompts")
    chat, text = renderer._apply_chat_template_async, renderer._tokenize_prompt_async
    decode, render = renderer._async_tokenizer_decode, renderer.render_chat_async
    complete = renderer.render_cmpl_async

    async def in_apart(make: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(apart, make)

    async def rendered(conversations: Any, params: Any, tok_params: Any = None, **more: Any) -> Any:
        _most.set(most_of(tok_params or renderer.default_chat_tok_params))
        return await render(conversations, params, tok_params, **more)

    async def completed(prompts: Any, *given: Any, **named: Any) -> Any:
        _many.set(are_long(prompts))
        return await complete(prompts, *given, **named)

    async def of_chat(tokenizer: Any, messages: list[Any], **named: Any) -> Any:
        texts, tools = [*texts_of(messages)], named.get("tools") or ()
        written = sum(len(str(one)) for one in written_anew(messages))
        written += len(msgspec.json.encode(tools)) if tools else 0
        if sum(map(len, texts)) + written <= LONG:
            return await chat(tokenizer, messages, **named)
        make = partial(safe_apply_chat_template, tokenizer, messages, **named)
        return await in_apart(partial(_if_short, texts, tokenizer, _most.get(), make, tools))

    async def of_text(prompt: Any, params: Any) -> Any:
        if len(prompt["prompt"]) <= LONG and not _many.get():
            return await text(prompt, params)
        make = partial(renderer._tokenize_prompt, prompt, params)
        tokenizer, most = renderer.get_tokenizer(), most_of(params)
        return await in_apart(partial(_if_short, [prompt["prompt"]], tokenizer, most, make))

    async def of_ids(ids: Any, *given: Any, **named: Any) -> Any:
        if len(ids) <= LONG_IDS and not _many.get():
            return await decode(ids, *given, **named)
        return await in_apart(partial(renderer._decode, ids, *given, **named))

    renderer.render_chat_async = rendered
    renderer.render_cmpl_async = completed
    renderer._apply_chat_template_async = of_chat
    renderer._tokenize_prompt_async = of_text
    renderer._async_tokenizer_decode = of_ids


def most_of(params: Any) -> int | None:
    """The most tokens that vLLM lets a prompt have; None if it takes any number, or truncates."""
    cut = params.truncate_prompt_tokens is not None
    return None if cut else params.max_total_tokens


def are_long(prompts: Iterable[Any]) -> bool:
    """Whether the prompts of a request, texts or ids, are long together."""
    texts = ids = 0
    for prompt in prompts:
        if isinstance(prompt, dict):
            texts += len(prompt.get("prompt") or "")
            ids += len(prompt.get("prompt_token_ids") or ())
    return texts > LONG or ids > LONG_IDS


def _if_short(
    texts: list[str],
    tokenizer: Any,
    most: int | None,
    make: Callable[[], Any],
    tools: Iterable[Any] = (),
) -> Any:
    from vllm.exceptions import VLLMValidationError

    encode = partial(tokenizer.encode, add_special_tokens=False)
    if tools:
        texts = [*texts, schemas_of(tools)]
    if most is not None and are_longer(texts, encode, most + AT_A_CUT * bool(tools)):
        raise VLLMValidationError(
            f"This model's maximum context length is {most} tokens, and the prompt's "
            f"{sum(map(len, texts))} characters have more; shorten it",
            parameter="prompt",
        )
    return make()


def are_longer(texts: Iterable[str], encode: Callable[[str], list[int]], most: int) -> bool:
    """Whether texts certainly have more than `most` tokens."""
    tokens = 0
    for text in texts:
        for start in range(0, len(text), LONG):
            tokens += len(encode(text[start : start + LONG])) - AT_A_CUT * (start > 0)
            if tokens > most:
                return True
    return False


def texts_of(messages: list[Any]) -> Iterator[str]:
    """The texts of messages that go into the prompt unchanged."""
    for message in messages:
        content = message.get("content") if message.get("role") != "tool" else None
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def schemas_of(tools: Iterable[Any]) -> str:
    """The schemas of tools, which are in the prompt with more text around each."""
    functions = [tool.get("function") or {} for tool in tools]
    return json.dumps([one.get("parameters") for one in functions], ensure_ascii=False)


def written_anew(messages: list[Any]) -> Iterator[Any]:
    """What mistral-common reads as JSON, and may write in fewer tokens: calls and results."""
    for message in messages:
        if message.get("role") == "tool":
            yield message.get("content")
        elif message.get("tool_calls"):
            yield message["tool_calls"]
