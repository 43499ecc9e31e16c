"""Long prompts, which are tokenized apart from the others, and no further than the model reads.

vLLM tokenizes all prompts in one thread, one after the other, and compares a chat's length when
that is done: 900 KB take up to 1 s, in which no other request gets its prompt.

Promises: a long prompt waits for other long ones only. One with more tokens than the model reads is
refused with vLLM's error before it is tokenized whole. A short one costs the sum of its lengths. A
renderer that is not Mistral's is left as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

LONG = 16384  # characters; 10 to 40 ms
AT_A_CUT = 32  # tokens that a cut may add to a text, and more
TEXTS = ("content", "text", "tool_calls", "function", "arguments")  # of a message; images are none

Renders = Callable[..., Awaitable[Any]]


def install(engine: Any) -> None:
    """`engine`: vLLM's client of its engine."""
    from vllm.renderers.mistral import MistralRenderer, safe_apply_chat_template

    renderer, most = engine.renderer, engine.model_config.max_model_len
    if not isinstance(renderer, MistralRenderer):
        return
    apart = ThreadPoolExecutor(1, thread_name_prefix="long prompts")
    chat, text = renderer._apply_chat_template_async, renderer._tokenize_prompt_async

    async def of_chat(tokenizer: Any, messages: list[Any], **named: Any) -> Any:
        texts = [*texts_of(messages), *map(str, named.get("tools") or ())]
        if sum(map(len, texts)) <= LONG:
            return await chat(tokenizer, messages, **named)
        make = partial(safe_apply_chat_template, tokenizer, messages, **named)
        return await _apart(partial(_if_short, texts, tokenizer, most, make))

    async def of_text(prompt: Mapping[str, Any], params: Any) -> Any:
        if len(prompt["prompt"]) <= LONG:
            return await text(prompt, params)
        make = partial(renderer._tokenize_prompt, prompt, params)
        if params.truncate_prompt_tokens is not None:  # however long it is, it will be short
            return await _apart(make)
        tokenizer = renderer.get_tokenizer()
        return await _apart(partial(_if_short, [prompt["prompt"]], tokenizer, most, make))

    async def _apart(make: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(apart, make)

    renderer._apply_chat_template_async = of_chat
    renderer._tokenize_prompt_async = of_text


def _if_short(texts: list[str], tokenizer: Any, most: int, make: Callable[[], Any]) -> Any:
    from vllm.exceptions import VLLMValidationError

    if are_longer(texts, partial(tokenizer.encode, add_special_tokens=False), most):
        raise VLLMValidationError(
            f"This model's maximum context length is {most} tokens, and the prompt's "
            f"{sum(map(len, texts))} characters have more; shorten it",
            parameter="prompt",
        )
    return make()


def are_longer(texts: Iterable[str], encode: Callable[[str], list[int]], most: int) -> bool:
    """Whether texts have more than `most` tokens, for certain."""
    tokens = 0
    for text in texts:
        for start in range(0, len(text), LONG):
            tokens += len(encode(text[start : start + LONG])) - AT_A_CUT * (start > 0)
            if tokens > most:
                return True
    return False


def texts_of(node: Any) -> Iterator[str]:
    """What is text in messages, of the prompt for certain."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for inner in node:
            yield from texts_of(inner)
    elif isinstance(node, dict):
        for name in TEXTS:
            if name in node:
                yield from texts_of(node[name])
