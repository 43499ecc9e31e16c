"""Every dialogue that a model's stand-in knows, behind every system message, asked of a server."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from deploy.cards import Card
from local.standins.corpus import chat, dialogues, load_dialogues
from local.truss import URL

AT_A_TIME = 80  # in few steps of the engine, and no more than every model has slots for


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
    """Name → what came, of those answers that are not exact. Many are asked at a time, so that the
    engine batches them."""
    cases = everything(card)
    with httpx.Client(base_url=URL, timeout=300, trust_env=False) as client:

        def ask(messages: list[dict[str, str]]) -> str:
            body: dict[str, Any] = {"messages": messages, "max_tokens": 200}
            response = client.post("/v1/chat/completions", json=body)
            if response.status_code != 200:
                return response.text
            return str(response.json()["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            got = pool.map(ask, [messages for messages, _ in cases.values()])
        pairs = zip(cases.items(), got, strict=True)
        return {name: text for (name, (_, answer)), text in pairs if text != answer}
