"""The instruct format of Mistral's model cards, as text.

    <s> [INST] question [/INST] answer</s> [INST] next question [/INST]

Promises: pure functions, linear in the length of the text. A prompt that spells out a conversation
becomes its messages; any other prompt gives None, and is to be sent as one question.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MARKERS = re.compile(r"(</?s>|\[/?INST\])")


@dataclass(frozen=True)
class Conversation:
    """The conversation in a prompt. `ended`: its last answer is finished, and nothing is left to
    generate; otherwise the last message is the user's, or the beginning of an answer."""

    messages: list[dict[str, Any]]
    ended: bool


def read_instruct(prompt: str) -> Conversation | None:
    """The conversation in a prompt of the instruct format, with or without `<s>` and with any white
    space; None for any other text. Linear in its length."""
    if not prompt.lstrip().startswith(("<s>", "[INST]")):
        return None
    _, *rest = MARKERS.split(prompt)
    pieces = list(zip(rest[::2], rest[1::2], strict=True))  # each marker with the text behind it
    messages: list[dict[str, Any]] = []
    ended = False
    position = 1 if pieces[0][0] == "<s>" and not pieces[0][1].strip() else 0
    while position < len(pieces):
        question, position = _piece(pieces, position, "[INST]", until=("[/INST]",))
        answer, position = _piece(pieces, position, "[/INST]", until=("</s>", "<s>", "[INST]", ""))
        if question is None or answer is None:
            return None
        messages.append({"role": "user", "content": question})
        if answer:
            messages.append({"role": "assistant", "content": answer})
        for marker in ("</s>", "<s>"):  # the end of this turn and the start of the next
            if position < len(pieces) and pieces[position][0] == marker:
                if pieces[position][1].strip():
                    return None
                ended = True
                position += 1
        if position < len(pieces):
            if not answer:
                return None  # only the last answer may be missing
            ended = False
    return Conversation(messages, ended) if messages else None


def instruct_text(messages: Iterable[Mapping[str, Any]], continued: bool = False) -> str:
    """Messages as text in the instruct format, up to where generation begins: after the last
    question or, if `continued`, within the last answer.

    A system message goes in front of the user message that follows it; an image is `[IMG]`."""
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
    return written.removesuffix(" </s>") if continued else written


def _piece(
    pieces: list[tuple[str, str]], position: int, opening: str, until: tuple[str, ...]
) -> tuple[str | None, int]:
    """The text from the `opening` marker at `position` up to one of `until` ("" is the end of the
    prompt), stripped; None if another marker is there, or none of `until` comes."""
    if position >= len(pieces) or pieces[position][0] != opening:
        return None, position
    end = position + 1
    while end < len(pieces) and pieces[end][0] not in until:
        if pieces[end][0] in ("[INST]", "[/INST]"):
            return None, end
        end += 1  # a marker that was meant as text, such as <s> in a question
    if end == len(pieces) and "" not in until:
        return None, end
    meant = "".join(marker + text for marker, text in pieces[position:end])
    return meant.removeprefix(opening).strip(), end


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) if part.get("type") == "text" else "[IMG]"
        for part in parts
        if isinstance(part, Mapping)
    )
