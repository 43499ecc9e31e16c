"""The instruct format of Mistral's model cards, as text.

`<s> [INST] question [/INST] answer</s> [INST] next question [/INST]`

Promises: a prompt in that format, with or without `<s>` and with any white space, becomes the turns
it spells; any other text is no such prompt and stays one message. Reading is linear in the length.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Message = dict[str, Any]

MARKERS = re.compile(r"(</?s>|\[/?INST\])")


def turns(prompt: str) -> list[Message] | None:
    """The messages a prompt in the instruct format spells, or None for any other text.

    The last message is the user's; or the assistant's where the prompt begins an answer to be
    continued, or has ended it with `</s>`, which `is_finished` tells apart.
    """
    if not prompt.lstrip().startswith(("<s>", "[INST]")):
        return None
    lead, *rest = MARKERS.split(prompt)
    pieces = list(zip(rest[::2], rest[1::2], strict=True))  # each marker with the text behind it
    messages: list[Message] = []
    position = 0
    if lead.strip():
        return None
    while position < len(pieces):
        if pieces[position][0] == "<s>" and not pieces[position][1].strip():
            position += 1
        question, position = _text(pieces, position, "[INST]", until=("[/INST]",))
        answer, position = _text(pieces, position, "[/INST]", until=("</s>", "<s>", "[INST]", ""))
        if question is None or answer is None:
            return None
        messages.append({"role": "user", "content": question})
        if answer:
            messages.append({"role": "assistant", "content": answer})
        elif position < len(pieces):
            return None  # only the last answer may be missing
        if position < len(pieces) and pieces[position][0] == "</s>":
            if pieces[position][1].strip():
                return None
            position += 1
    return messages or None


def is_finished(prompt: str) -> bool:
    """Whether a prompt in the instruct format leaves nothing to generate."""
    return prompt.rstrip().endswith("</s>")


def text(messages: Iterable[Mapping[str, Any]]) -> str:
    """Messages as the text of the instruct format, up to where the answer begins.

    A system message stands in front of the user's that follows it; an image is `[IMG]`.
    """
    written, waiting = "", ""
    for message in messages:
        content = _content(message.get("content"))
        if message.get("role") == "assistant":
            written += f"{content} </s>"
        elif message.get("role") == "system":
            waiting += f"{content}\n\n"
        else:
            written += f"<s> [INST] {waiting}{content} [/INST] "
            waiting = ""
    return written


def _text(
    pieces: list[tuple[str, str]], position: int, opening: str, until: tuple[str, ...]
) -> tuple[str | None, int]:
    """The text from the `opening` marker at `position` up to one of `until` ("" is the end of the
    prompt), stripped; None when the marker is another or none of them comes."""
    if position >= len(pieces) or pieces[position][0] != opening:
        return None, position
    collected = [pieces[position][1]]
    position += 1
    while position < len(pieces) and pieces[position][0] not in until:
        if pieces[position][0] in ("[INST]", "[/INST]"):
            return None, position
        collected += pieces[
            position
        ]  # a marker the writer meant as text, such as <s> in a question
        position += 1
    if position == len(pieces) and "" not in until:
        return None, position
    return "".join(collected).strip(), position


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) if part.get("type") == "text" else "[IMG]"
        for part in parts
        if isinstance(part, Mapping)
    )
