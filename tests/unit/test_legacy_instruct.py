from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from predict.legacy.instruct import MARKERS, Conversation, instruct_text, read_instruct

Q1 = {"role": "user", "content": "What is a mistral?"}
A1 = {"role": "assistant", "content": "A wind."}
Q2 = {"role": "user", "content": "How does it form?"}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<s> [INST] What is a mistral? [/INST]", [Q1]),
        ("[INST] What is a mistral? [/INST]", [Q1]),
        ("<s>[INST]What is a mistral?[/INST]", [Q1]),
        (" \n<s>\n[INST]\tWhat is a mistral?\n[/INST]  \n", [Q1]),
        (  # Mixtral's and Mistral's model cards
            "<s> [INST] What is a mistral? [/INST] A wind.</s> [INST] How does it form? [/INST]",
            [Q1, A1, Q2],
        ),
        (
            "[INST] What is a mistral? [/INST]A wind. </s>[INST] How does it form? [/INST]",
            [Q1, A1, Q2],
        ),
        (  # as the library page of Mixtral prints it
            "<s> [INST] What is a mistral? [/INST] A wind. </s><s> [INST] How does it form? "
            "[/INST] ",
            [Q1, A1, Q2],
        ),
        (  # without the end of the first answer
            "[INST] What is a mistral? [/INST] A wind. [INST] How does it form? [/INST]",
            [Q1, A1, Q2],
        ),
        ("[INST] What is a mistral? [/INST] A wind.", [Q1, A1]),
        ("[INST] What is <s>? [/INST]", [{"role": "user", "content": "What is <s>?"}]),
        ("[INST] two\n\nlines [/INST]", [{"role": "user", "content": "two\n\nlines"}]),
    ],
)
def test_a_prompt_in_the_format_becomes_its_turns(
    prompt: str, expected: list[dict[str, str]]
) -> None:
    assert read_instruct(prompt) == Conversation(expected, ended=False)


@pytest.mark.parametrize("end", ["</s>", " </s>\n", "</s><s>", " <s> ", "</s> <s>"])
def test_a_prompt_may_end_with_a_finished_answer(end: str) -> None:
    prompt = f"[INST] What is a mistral? [/INST] A wind.{end}"
    assert read_instruct(prompt) == Conversation([Q1, A1], ended=True)
    empty = read_instruct(f"[INST] What is a mistral? [/INST]{end}")
    assert empty == Conversation([Q1], ended=True)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "  ",
        "What is a mistral?",
        "What does [INST] mean in <s> [INST] a [/INST]?",
        "<s> What is a mistral?",
        "[INST] What is a mistral?",
        "[/INST] What is a mistral? [INST]",
        "[INST] a [INST] b [/INST]",
        "[INST] a [/INST] b [/INST]",
        "[INST] a [/INST] [INST] b [/INST]",
        "[INST] a [/INST] b</s> c",
        "[INST] a [/INST] b</s> c [INST] d [/INST]",
        "</s> [INST] a [/INST]",
        "<s><s> [INST] a [/INST]",
        "<s>",
    ],
)
def test_any_other_text_is_not_read_as_turns(prompt: str) -> None:
    assert read_instruct(prompt) is None


words = st.text("abc é\n<>/[]INSTs", min_size=1).map(str.strip).filter(bool)
spaces = st.sampled_from(["", " ", "\n", "  \t"])


@given(st.lists(words, min_size=1, max_size=7), st.booleans(), st.lists(spaces, min_size=9))
def test_what_is_written_in_the_format_is_read_back(
    said: list[str], start: bool, gaps: list[str]
) -> None:
    if any(MARKERS.search(text) for text in said):
        return
    said = said[: len(said) - (len(said) + 1) % 2]  # an odd number: it ends with a question
    gap = iter(gaps * len(said)).__next__
    prompt = "<s>" if start else ""
    for index, text in enumerate(said):
        around = f"{gap()}{text}{gap()}"
        prompt += f"{gap()}[INST]{around}[/INST]" if index % 2 == 0 else f"{around}</s>"
    roles = ["user", "assistant"]
    expected = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    assert read_instruct(prompt) == Conversation(expected, ended=False)


@given(st.lists(st.sampled_from(["<s>", "</s>", "[INST]", "[/INST]", " ", "a", "\n"])))
@example(["[INST]", "a", "[/INST]", "</s>"])
def test_turns_alternate_and_begin_with_a_question(parts: list[str]) -> None:
    read = read_instruct("".join(parts))
    if read is not None:
        roles = [message["role"] for message in read.messages]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)]


def test_messages_are_written_as_the_library_page_prints_them() -> None:
    assert instruct_text([Q1, A1, Q2]) == (
        "<s> [INST] What is a mistral? [/INST] A wind. </s><s> [INST] How does it form? [/INST] "
    )


def test_a_continued_answer_is_left_open() -> None:
    assert instruct_text([Q1, A1], continued=True) == (
        "<s> [INST] What is a mistral? [/INST] A wind."
    )


def test_a_system_message_and_an_image_have_their_place_in_the_text() -> None:
    parts = [{"type": "text", "text": "Which colour?"}, {"type": "image_url", "image_url": {}}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
    ]
    assert instruct_text(messages) == "<s> [INST] Be brief.\n\nWhich colour?\n[IMG] [/INST] "
