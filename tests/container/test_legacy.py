"""Legacy requests on the running container, each argument by its effect."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from local.standins.corpus import load_dialogues
from local.truss import URL
from tests.support.container import Running, at_once, flowing
from tests.support.images import IMAGES, part

Chats = dict[str, tuple[list[Any], str]]

QUESTION = "What is the Mistral wind?"
pixtral = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)
with_tools = pytest.mark.parametrize("container", ["mistral-7b", "pixtral-12b"], indirect=True)
text_models = pytest.mark.parametrize("container", ["mixtral-8x7b", "mistral-7b"], indirect=True)


@pytest.fixture
def answer(chats: Chats) -> str:
    return chats["mistral_wind"][1]


def post(container: Running, **request: Any) -> httpx.Response:
    return container.http.post("/predict", json=request)


def output(container: Running, **request: Any) -> Any:
    response = post(container, **{"prompt": QUESTION, **request})
    assert response.status_code == 200, response.text
    return response.json()["output"]


def pieces(container: Running, **request: Any) -> list[str]:
    """The chunks of a stream, each decoded separately."""
    body = {"prompt": QUESTION, "stream": True, **request}
    with container.http.stream("POST", "/predict", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        return [chunk.decode() for chunk in response.iter_raw()]


def tokens(container: Running, text: str) -> list[int]:
    """The tokens of an answer in which each word begins with a space."""
    body = {"prompt": text, "add_special_tokens": False}
    ids: list[int] = container.http.post("/tokenize", json=body).json()["tokens"]
    return ids


def word_token(container: Running, word: str) -> int:
    """The single token of a word inside an answer."""
    (token,) = tokens(container, f"x {word}")[len(tokens(container, "x")) :]
    return token


# --- prompts ---


def test_a_prompt_is_answered(container: Running, answer: str) -> None:
    got = post(container, prompt=QUESTION).json()
    assert got["output"] == answer
    assert got["finish_reason"] == "stop"
    assert got["usage"]["completion_tokens"] > 10


def test_a_prompt_streams(container: Running, answer: str) -> None:
    """test_answers.py tests that chunks do not wait for each other."""
    got = flowing(lambda: pieces(container), 2)
    assert "".join(got) == answer
    assert len(got) > 2
    assert all(got)


@text_models
def test_a_conversation_in_the_instruct_format_is_its_turns(
    container: Running, chats: Chats
) -> None:
    messages, answer = chats["mistral_two_turns"]
    first, said, second = (message["content"] for message in messages)
    prompts = [
        f"<s> [INST] {first} [/INST] {said}</s> [INST] {second} [/INST]",
        f"[INST]{first}[/INST]{said}</s>[INST]{second}[/INST]",
        f"<s>\n[INST]\n{first}\n[/INST]\n{said} </s><s> [INST] {second} [/INST] ",
    ]
    assert at_once(lambda prompt: output(container, prompt=prompt), prompts) == [answer] * 3


def test_an_answer_begun_in_the_prompt_is_continued(container: Running, answer: str) -> None:
    begun, rest = answer[:16], answer[16:]
    assert begun == "The Mistral is a"
    assert output(container, prompt=f"<s> [INST] {QUESTION} [/INST] {begun}") == rest


def test_messages_with_an_older_argument_get_the_older_answer(
    container: Running, answer: str
) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    got = post(container, messages=messages, max_new_tokens=100).json()
    assert got["output"] == answer
    body = {"messages": messages, "max_new_tokens": 100, "stream": True}
    assert container.http.post("/predict", json=body).text == answer


def test_a_prompt_needs_no_content_type(container: Running, answer: str) -> None:
    body = json.dumps({"prompt": QUESTION})
    assert container.http.post("/predict", content=body).json()["output"] == answer


@pixtral
def test_an_image_goes_with_an_older_argument(container: Running) -> None:
    content = [{"type": "text", "text": "What colour is this image?"}, part("blue")]
    messages = [{"role": "user", "content": content}]
    expected = IMAGES["answers"][0].format("blue")
    for bound in ({"max_new_tokens": 64}, {"max_length": 200}):
        assert post(container, messages=messages, **bound).json()["output"] == expected


# --- arguments of generate, by effect ---


def test_max_new_tokens_ends_the_answer(container: Running, answer: str) -> None:
    got = post(container, prompt=QUESTION, max_new_tokens=5).json()
    assert got["usage"]["completion_tokens"] == 5
    assert got["finish_reason"] == "length"
    assert answer.startswith(got["output"])


def test_max_length_counts_the_prompt(container: Running, answer: str) -> None:
    prompt_tokens = post(container, prompt=QUESTION).json()["usage"]["prompt_tokens"]
    got = post(container, prompt=QUESTION, max_length=prompt_tokens + 6).json()
    assert got["usage"]["completion_tokens"] == 6
    assert answer.startswith(got["output"])
    refused = post(container, prompt=QUESTION, max_length=prompt_tokens)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "max_length"


def test_the_least_number_of_tokens_is_reached(container: Running, answer: str) -> None:
    usual = post(container, prompt=QUESTION).json()["usage"]
    least = usual["completion_tokens"] + 5
    bounds = [{"min_new_tokens": least}, {"min_length": usual["prompt_tokens"] + least}]
    asked = {"prompt": QUESTION, "max_new_tokens": least + 3}
    for got in at_once(lambda bound: post(container, **asked, **bound).json(), bounds):
        assert got["usage"]["completion_tokens"] >= least
        assert got["output"].startswith(answer)


def test_several_answers_come_as_a_list(container: Running, answer: str) -> None:
    assert output(container, num_return_sequences=3, temperature=0.9) == [answer] * 3


def test_stop_strings_end_the_answer_and_stay_in_it(container: Running, answer: str) -> None:
    up_to = answer[: answer.index("north") + len("north")]
    assert output(container, stop_strings="north") == up_to
    assert output(container, stop_strings=["nowhere", "north"]) == up_to
    assert "".join(pieces(container, stop_strings="north")) == up_to


def test_eos_token_id_takes_the_place_of_the_model_s_own(container: Running, answer: str) -> None:
    up_to = answer[: answer.index(" north") + len(" north")]
    arguments: list[Any] = [
        {"eos_token_id": word_token(container, "north")},
        {"eos_token_id": [2]},
        {"eos_token_id": 1, "max_new_tokens": 60},
    ]
    got = at_once(lambda argument: post(container, prompt=QUESTION, **argument).json(), arguments)
    north, usual, other = got
    assert north["output"] == up_to
    assert usual["output"] == answer  # </s> is not part of the text
    assert other["usage"]["completion_tokens"] == 60


@pytest.mark.parametrize(
    "banning",
    [
        lambda token: {"bad_words_ids": [[token]]},
        lambda token: {"suppress_tokens": [token]},
        lambda token: {"sequence_bias": [[[token], -100]]},
    ],
)
def test_a_banned_token_does_not_come(
    container: Running, answer: str, banning: Callable[[int], dict[str, Any]]
) -> None:
    got = output(container, do_sample=False, **banning(word_token(container, "north")))
    assert "north" in answer
    assert " north" not in got
    assert got.startswith(answer[: answer.index(" north")])


def test_a_bad_word_of_several_tokens_is_banned_by_its_text(
    container: Running, answer: str
) -> None:
    ids = [word_token(container, "strong"), *tokens(container, "x,")[-1:]]
    assert "strong," in answer
    got = output(container, do_sample=False, bad_words_ids=[ids])
    spelled = tokens(container, got)  # another token may begin with the same comma
    assert ids not in [spelled[at : at + 2] for at in range(len(spelled))]
    assert got.startswith("The Mistral is a strong")
    assert got != answer


def test_a_bad_word_that_has_no_text_of_its_own_is_refused(container: Running) -> None:
    comma, cold = tokens(container, "x,")[-1], word_token(container, "cold")
    refused = post(container, prompt=QUESTION, bad_words_ids=[[comma, comma, cold, 3]])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "bad_words_ids"


def test_return_full_text_puts_the_prompt_first(container: Running, answer: str) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    requests: list[Any] = [
        {"prompt": QUESTION, "return_full_text": True},
        {"prompt": QUESTION, "return_full_text": False},
        {"messages": messages, "return_full_text": True},
    ]
    got = at_once(lambda request: post(container, **request).json()["output"], requests)
    shown = f"<s> [INST] {QUESTION} [/INST] {answer}"
    assert got == [QUESTION + answer, answer, shown]
    assert "".join(pieces(container, return_full_text=True)) == QUESTION + answer


def test_beams_are_searched_and_the_best_are_returned(container: Running, answer: str) -> None:
    requests: list[Any] = [{}, {"num_return_sequences": 2}]
    one, best = at_once(
        lambda request: output(container, num_beams=3, max_new_tokens=50, **request), requests
    )
    assert one == answer
    assert len(best) == 2
    assert best[0] == answer != best[1]


def test_scores_come_as_logprobs(container: Running) -> None:
    got = post(container, prompt=QUESTION, output_scores=True, max_new_tokens=2).json()
    assert len(got["logprobs"]["content"]) == 2


@with_tools
def test_a_tool_call_is_not_lost(container: Running) -> None:
    tools = load_dialogues()["tools"]
    got = post(container, prompt=tools["question"], tools=tools["definitions"]).json()
    assert got["tool_calls"][0]["function"]["name"] == tools["call"]["name"]
    assert got["finish_reason"] == "tool_calls"


# --- defaults of the model ---


def test_an_answer_without_an_end_stops_at_the_model_s_default_or_where_the_client_says(
    container: Running,
) -> None:
    """Pixtral's default also applies to OpenAI requests."""
    messages = [{"role": "user", "content": QUESTION}]
    requests: list[Any] = [{"prompt": QUESTION}, {"messages": messages, "max_tokens": 600}]
    if container.card.name == "pixtral-12b":
        requests.append({"messages": messages})
    got = at_once(lambda request: post(container, ignore_eos=True, **request).json(), requests)
    default, given, *others = [answer["usage"]["completion_tokens"] for answer in got]
    assert default == container.card.sampling.max_tokens == 512
    assert given == 600
    assert others == [512] * (container.card.name == "pixtral-12b")


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_more_new_tokens_than_the_card_allows_are_refused(container: Running) -> None:
    limit = container.card.sampling.max_tokens_limit
    assert limit == 4096
    refused = post(container, prompt=QUESTION, max_new_tokens=limit + 1)
    assert refused.status_code == 400
    assert "4096" in refused.json()["error"]["message"]
    assert post(container, prompt=QUESTION, max_new_tokens=limit).status_code == 200


# --- errors ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("request_", "status", "param"),
    [
        ({"model": "gpt-4"}, 404, "model"),
        ({"messages": []}, 400, "prompt"),
        ({"prompt": 5}, 400, "prompt"),
        ({"max_new_token": 5}, 400, "max_new_token"),
        ({"typical_p": 0.5}, 400, "typical_p"),
        ({"temperature": 3.0}, 400, "temperature"),
        ({"num_beams": 50}, 400, "num_beams"),
        # found when vLLM's tokenizer is called
        ({"model": "gpt-4", "max_length": 50}, 404, "model"),
        ({"max_length": 1}, 400, "max_length"),
        ({"bad_words_ids": [[5, 10**9]]}, 400, "bad_words_ids"),
    ],
)
def test_errors_have_openai_s_shape_and_their_status(
    container: Running, request_: dict[str, Any], status: int, param: str, stream: bool
) -> None:
    response = post(container, **{"prompt": QUESTION, "stream": stream, **request_})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (status, param)
    assert error["message"]
    assert error["type"]


@pytest.mark.parametrize("name", ["guided_json", "guided_regex", "guided_choice", "guided_grammar"])
def test_guided_requests_are_told_what_to_use(container: Running, name: str) -> None:
    import openai

    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    with pytest.raises(openai.BadRequestError, match="structured_outputs") as caught:
        container.client.chat.completions.create(
            model=container.card.name, messages=messages, extra_body={name: "x"}
        )
    assert caught.value.param == name


# --- streams ---


@pytest.mark.parametrize("stream", [True, False])
def test_generation_stops_when_the_client_leaves(container: Running, stream: bool) -> None:
    body = {"prompt": QUESTION, "stream": stream, "ignore_eos": True, "max_new_tokens": 4000}
    wait_until(container, running=0)  # a request of the previous test may still be ending
    client = socket.create_connection(("127.0.0.1", int(URL.rsplit(":", 1)[1])))
    text = json.dumps(body)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
    client.sendall((head + text).encode())
    wait_until(container, running=1)
    finished = metric(container, "vllm:request_success_total", 'finished_reason="length"')
    client.close()
    wait_until(container, running=0)
    assert metric(container, "vllm:request_success_total", 'finished_reason="length"') == finished


def metric(container: Running, name: str, label: str = "") -> float:
    """The sum of a metric's lines."""
    lines = container.http.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(f"{name}{{") and label in line]
    assert found, name
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def wait_until(container: Running, running: int) -> None:
    deadline = time.monotonic() + 60
    while metric(container, "vllm:num_requests_running") != running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
