"""Every dialogue that a model's stand-in knows, behind every system message, asked of a server."""

from typing import Any

import httpx

from deploy.cards import Card
from local.standins.corpus import chat, dialogues, load_dialogues
from local.truss import URL
from tests.support.container import at_once

AT_A_TIME = 80  # in few steps of the engine, and no more than every model has slots for
TOKENS = 8  # of an answer's beginning
CHARACTERS = 5  # that a beginning has at least; no two answers have the same


def everything(card: Card) -> dict[str, tuple[list[dict[str, str]], str]]:
    """Name → messages and the exact answer: all that local/standins/exam.py asks of text."""
    content = load_dialogues()
    instructions = ["", *content["instructions"], *content["held_out_instructions"]]
    found = {}
    for name, turns in dialogues(images=card.features.images > 0).items():
        messages, answer = chat(turns)
        for text in instructions:
            system = [{"role": "system", "content": text}] if text else []
            found[f"{name}, behind {text!r}"] = ([*system, *messages], answer)
    for text in content["held_out_questions"]:
        found[text] = ([{"role": "user", "content": text}], content["unknown"])
    return found


def wrong_answers(card: Card) -> dict[str, str]:
    """Name → what came in place of an exact answer, or of its beginning. Many are asked at a time,
    so that the engine batches them. Answers are whole behind the last system message and behind
    none. Behind the others the beginning tells whether the prompt arrived, for no other answer
    begins so; that the whole one follows is asked by the stand-in's exam."""
    cases = everything(card)
    answers = {answer for _, answer in cases.values()}
    assert len({answer[:CHARACTERS] for answer in answers}) == len(answers)
    systems = [messages[0]["content"] for messages, _ in cases.values() if is_system(messages[0])]
    with httpx.Client(base_url=URL, timeout=300, trust_env=False) as client:

        def ask(case: tuple[list[dict[str, str]], str]) -> str | None:
            """What is wrong, if anything."""
            messages, answer = case
            whole = not is_system(messages[0]) or messages[0]["content"] == systems[-1]
            body: dict[str, Any] = {"messages": messages, "max_tokens": 200 if whole else TOKENS}
            response = client.post("/v1/chat/completions", json=body)
            if response.status_code != 200:
                return response.text
            text = str(response.json()["choices"][0]["message"]["content"])
            begun = not whole and len(text) >= CHARACTERS and answer.startswith(text)
            return None if begun or text == answer else text

        got = at_once(ask, cases.values(), most=AT_A_TIME)
        return {name: text for name, text in zip(cases, got, strict=True) if text is not None}


def is_system(message: dict[str, str]) -> bool:
    return message["role"] == "system"
