"""Sends every dialogue that a model's stand-in knows, after every system message, to a server."""

from typing import Any

import httpx

from deploy.cards import Card
from local.standins.corpus import chat, dialogues, load_dialogues
from local.truss import URL
from tests.support.container import KEPT, at_once

AT_A_TIME = 80  # for few steps of the engine, and no more than the slots of any model
TOKENS = 8  # of an answer's beginning
CHARACTERS = 5  # minimum length of a beginning; unique among the answers


def everything(card: Card) -> dict[str, tuple[list[dict[str, str]], str]]:
    """Name → messages and the exact answer: all the text that local/standins/exam.py tests."""
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
    """Name → the answer received in place of an exact answer, or of its beginning. Many requests
    run at a time, so that the engine batches them. Answers after the last system message and after
    none are complete. After the others the beginning shows that the prompt arrived, because it is
    unique; the stand-in's exam checks the complete answers."""
    cases = everything(card)
    answers = {answer for _, answer in cases.values()}
    assert len({answer[:CHARACTERS] for answer in answers}) == len(answers)
    systems = [messages[0]["content"] for messages, _ in cases.values() if is_system(messages[0])]
    with httpx.Client(base_url=URL, timeout=300, trust_env=False, limits=KEPT) as client:

        def ask(case: tuple[list[dict[str, str]], str]) -> str | None:
            """The wrong answer, if it is wrong."""
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
