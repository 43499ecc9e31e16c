"""What becomes of a request, argument by argument."""

from typing import Any

import pytest
from predict.errors import RequestError
from predict.legacy.parameters import NO_EFFECT, UNSUPPORTED
from predict.legacy.requests import finish, is_legacy, missing_defaults, translate
from predict.settings import Settings

from tests.support.legacy import MISTRAL, NONE, PIXTRAL, PROMPT_TOKENS


def chat(request: dict[str, Any], settings: Settings = NONE) -> dict[str, Any]:
    """What vLLM gets, less the messages; the prompt has ten tokens."""
    legacy = translate({"prompt": "Hello", **request}, settings)
    words = [f"word{ids}" for ids in legacy.bad_words_ids]
    return {k: v for k, v in finish(legacy, PROMPT_TOKENS, words).items() if k != "messages"}


def refused(request: dict[str, Any], settings: Settings = NONE) -> RequestError:
    def ask() -> None:
        whole = {"prompt": "Hello", **request}
        is_legacy(whole)
        finish(translate(whole, settings), PROMPT_TOKENS, [])

    with pytest.raises(RequestError) as caught:
        ask()
    return caught.value


GREEDY = {"temperature": 0}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, {}),
        ({"max_new_tokens": 5}, {"max_tokens": 5}),
        ({"max_new_tokens": 5.0}, {"max_tokens": 5}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_new_tokens": 5, "max_tokens": 5}, {"max_tokens": 5}),
        ({"max_length": 15}, {"max_tokens": 5}),
        ({"max_length": 15, "max_new_tokens": 9}, {"max_tokens": 9}),
        ({"min_new_tokens": 3}, {"min_tokens": 3}),
        ({"min_length": 15}, {"min_tokens": 5}),
        ({"min_length": 5}, {"min_tokens": 0}),
        ({"min_length": 15, "min_new_tokens": 2}, {"min_tokens": 2}),
        ({"min_new_tokens": 9, "max_new_tokens": 5}, {"min_tokens": 5, "max_tokens": 5}),
        ({"min_length": 30, "max_length": 15}, {"min_tokens": 5, "max_tokens": 5}),
        ({"do_sample": False}, GREEDY),
        ({"do_sample": False, "temperature": 0.9, "top_p": 0.5, "top_k": 3, "min_p": 0.1}, GREEDY),
        ({"do_sample": True, "temperature": 0.9}, {"temperature": 0.9}),
        ({"temperature": 0}, GREEDY),
        ({"top_k": 3, "top_p": 0.5, "min_p": 0.1}, {"top_k": 3, "top_p": 0.5, "min_p": 0.1}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"num_return_sequences": 3}, {"n": 3}),
        ({"num_beams": 1, "length_penalty": 2.0, "early_stopping": True}, {}),
        ({"num_beams": 4}, {**GREEDY, "use_beam_search": True, "n": 4}),
        (
            {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
            {**GREEDY, "use_beam_search": True, "n": 4, "length_penalty": 0.5},
        ),
        (
            {"num_beams": 4, "early_stopping": "never", "top_k": 5, "repetition_penalty": 1.0},
            {**GREEDY, "use_beam_search": True, "n": 4, "repetition_penalty": 1.0},
        ),
        ({"stop_strings": "a"}, {"stop": ["a"], "include_stop_str_in_output": True}),
        ({"stop_strings": ["a", "b"]}, {"stop": ["a", "b"], "include_stop_str_in_output": True}),
        (
            {"eos_token_id": 2},
            {"stop_token_ids": [2], "ignore_eos": True, "include_stop_str_in_output": True},
        ),
        (
            {"eos_token_id": [2, 5]},
            {"stop_token_ids": [2, 5], "ignore_eos": True, "include_stop_str_in_output": True},
        ),
        ({"suppress_tokens": [7]}, {"logit_bias": {"7": -100.0}}),
        ({"bad_words_ids": [[7]]}, {"logit_bias": {"7": -100.0}}),
        ({"bad_words_ids": [[7, 8]]}, {"bad_words": ["word[7, 8]"]}),
        ({"bad_words_ids": [[7, 8]], "bad_words": ["x"]}, {"bad_words": ["x", "word[7, 8]"]}),
        (
            {"sequence_bias": [[[7], 1.5], [[8], -3]], "logit_bias": {"9": 1}},
            {"logit_bias": {"9": 1, "7": 1.5, "8": -3}},
        ),
        ({"output_scores": True}, {"logprobs": True}),
        ({"output_scores": False}, {}),
        ({"seed": 7}, {"seed": 7}),
        ({"return_full_text": True}, {}),
        (
            {"generation_config": {"max_new_tokens": 5, "seed": 1}, "seed": 2},
            {"max_tokens": 5, "seed": 2},
        ),
        ({"generation_config": {"max_new_tokens": 5}, "max_tokens": 7}, {"max_tokens": 7}),
        ({"suppress_tokens": [7], "sequence_bias": [[[7], 3]]}, {"logit_bias": {"7": -100.0}}),
        ({"use_beam_search": True, "n": 3}, {**GREEDY, "use_beam_search": True, "n": 3}),
        ({"stop": ["x"], "user": "me"}, {"stop": ["x"], "user": "me"}),
        ({"max_new_tokens": None, "do_sample": None, "typical_p": None}, {}),
    ],
)  # fmt: skip
def test_arguments_become_fields_of_vllm(
    request_: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert chat(request_) == expected


@pytest.mark.parametrize(
    ("request_", "param", "said"),
    [
        ({"messages": []}, "prompt", "both given"),
        ({"prompt": None, "max_new_tokens": 5}, "prompt", "neither"),
        ({"prompt": ["a"]}, "prompt", 'takes a string, got ["a"]'),
        ({"prompt": "[INST] a [/INST] b</s>"}, "prompt", "finished answer"),
        ({"stream": "yes"}, "stream", 'takes a boolean, got "yes"'),
        ({"max_new_tokens": 0}, "max_new_tokens", "a positive integer, got 0"),
        ({"max_new_tokens": "5"}, "max_new_tokens", 'a positive integer, got "5"'),
        ({"max_new_tokens": True}, "max_new_tokens", "got true"),
        ({"max_new_tokens": 10**400}, "max_new_tokens", "a positive integer, got 1000"),
        ({"temperature": 10**400}, "temperature", "a number, got 1000"),
        ({"max_new_tokens": 1e30}, "max_new_tokens", "got 1e+30"),
        ({"temperature": "hot"}, "temperature", 'a number, got "hot"'),
        ({"temperature": float("nan")}, "temperature", "a number, got NaN"),
        ({"max_new_tokens": 5, "max_tokens": 6}, "max_tokens", "mean the same"),
        ({"num_return_sequences": 2, "n": 3}, "n", "mean the same"),
        ({"n": "2"}, "n", "a positive integer"),
        ({"max_length": 10}, "max_length", "the prompt alone has 10 tokens"),
        ({"do_sample": True, "temperature": 0}, "temperature", "above 0"),
        ({"do_sample": False, "num_return_sequences": 2}, "num_return_sequences", "greedy"),
        ({"num_beams": 11}, "num_beams", "at most 10"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences", "more than"),
        ({"num_beams": 2, "do_sample": True}, "do_sample", "not available"),
        ({"num_beams": 2, "early_stopping": True}, "early_stopping", "not available"),
        ({"num_beams": 2, "stop_strings": "a"}, "stop_strings", "no effect"),
        ({"num_beams": 2, "repetition_penalty": 1.1}, "repetition_penalty", "no effect"),
        ({"num_beams": 2, "stop": "a"}, "stop", "no effect"),
        ({"num_beams": 2, "stream": True}, "num_beams", "streamed"),
        ({"num_beams": 2, "use_beam_search": False}, "use_beam_search", "send one"),
        ({"num_beams": 2, "response_format": {"type": "json_object"}}, "response_format", "effect"),
        ({"num_beams": 2, "eos_token_id": 5}, "eos_token_id", "no effect"),
        ({"use_beam_search": True, "stop": "a"}, "stop", "no effect"),
        ({"use_beam_search": True, "stream": True}, "use_beam_search", "streamed"),
        ({"use_beam_search": True, "n": 11}, "n", "at most 10"),
        ({"num_return_sequences": 2, "stream": True}, "num_return_sequences", "streamed"),
        ({"logprobs": True, "stream": True}, "logprobs", "cannot carry"),
        ({"tools": [{}], "stream": True}, "tools", "cannot carry"),
        ({"prompt_logprobs": 0}, "prompt_logprobs", "cannot carry"),
        ({"stop_strings": []}, "stop_strings", "a string or list of strings (not empty), got []"),
        ({"stop_strings": "a", "stop": "b"}, "stop_strings", "both given"),
        ({"eos_token_id": 2, "stop": "b"}, "eos_token_id", "both given"),
        ({"eos_token_id": -1}, "eos_token_id", "got -1"),
        ({"eos_token_id": []}, "eos_token_id", "got []"),
        ({"bad_words_ids": [7]}, "bad_words_ids", "got [7]"),
        ({"sequence_bias": [[[7, 8], 1.0]]}, "sequence_bias", "[[token id], bias"),
        ({"sequence_bias": [[[7], 1000]]}, "sequence_bias", "-100 to 100"),
        ({"sequence_bias": {"(7,)": 1}}, "sequence_bias", "[[token id], bias"),
        ({"sequence_bias": [[[7], 1]], "logit_bias": {"7": 2}}, "sequence_bias", "both bias"),
        ({"early_stopping": "often"}, "early_stopping", 'boolean or "never"'),
        ({"generation_config": 5}, "generation_config", "takes an object"),
        ({"generation_config": {"max_tokens": 5}}, "max_tokens", "belongs beside"),
        ({"typical_p": 0.9}, "typical_p", "use `top_p`"),
        ({"generation_config": {"guided_json": {}}}, "guided_json", "structured_outputs"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_by_name(
    request_: dict[str, Any], param: str, said: str
) -> None:
    error = refused(request_)
    assert error.param == param
    assert said in str(error)


def test_defaults_of_the_model_fill_what_is_missing() -> None:
    assert chat({}, MISTRAL) == {
        "max_tokens": 512,
        "temperature": 0.1,
        "top_p": 0.75,
        "top_k": 40,
    }
    assert chat({}, PIXTRAL) == {"max_tokens": 512, "temperature": 0.7}


def test_a_value_the_client_gives_wins_over_a_default() -> None:
    given_ = {"max_new_tokens": 7, "temperature": 0.5, "top_p": 1.0, "top_k": 0}
    expected = {"max_tokens": 7, "temperature": 0.5, "top_p": 1.0, "top_k": 0}
    assert chat(given_, MISTRAL) == expected
    assert chat({"do_sample": False}, MISTRAL) == {"max_tokens": 512, "temperature": 0}
    assert chat({"max_length": 3000}, MISTRAL)["max_tokens"] == 2990


@pytest.mark.parametrize("name", ["max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_the_limit_of_new_tokens_is_the_model_s(name: str) -> None:
    assert chat({name: 4096}, MISTRAL)["max_tokens"] == 4096
    error = refused({name: 4097}, MISTRAL)
    assert error.param == name
    assert "at most 4096" in str(error)


def test_the_limit_holds_for_what_max_length_leaves() -> None:
    assert chat({"max_length": 4106}, MISTRAL)["max_tokens"] == 4096
    assert refused({"max_length": 4107}, MISTRAL).param == "max_length"


def test_defaults_for_openai_requests() -> None:
    assert missing_defaults({}, PIXTRAL) == {"max_tokens": 512, "temperature": 0.7}
    nulls = {"max_tokens": None, "temperature": None}
    assert missing_defaults(nulls, PIXTRAL) == {"max_tokens": 512, "temperature": 0.7}
    assert missing_defaults({"max_completion_tokens": 5}, PIXTRAL) == {"temperature": 0.7}
    assert missing_defaults({"max_tokens": 5, "temperature": 0}, PIXTRAL) == {}


def test_a_prompt_is_a_message_of_the_user() -> None:
    legacy = translate({"prompt": " What is a mistral? "}, NONE)
    assert legacy.chat["messages"] == [{"role": "user", "content": " What is a mistral? "}]


def test_a_prompt_that_begins_the_answer_has_it_continued() -> None:
    legacy = translate({"prompt": "<s> [INST] Hi [/INST] The answer is"}, NONE)
    assert legacy.chat["continue_final_message"] is True
    assert legacy.chat["add_generation_prompt"] is False
    assert legacy.chat["messages"][-1] == {"role": "assistant", "content": "The answer is"}
    assert legacy.keep_space


def test_messages_that_begin_the_answer_need_no_second_setting() -> None:
    asked = {"messages": [], "continue_final_message": True, "max_new_tokens": 5}
    assert translate(asked, NONE).chat["add_generation_prompt"] is False


def test_full_text_begins_with_the_prompt_as_sent_or_the_messages_as_text() -> None:
    prompt = "<s>[INST] Hi [/INST]"
    assert translate({"prompt": prompt, "return_full_text": True}, NONE).before == prompt
    messages = [{"role": "user", "content": "Hi"}]
    legacy = translate({"messages": messages, "return_full_text": True}, NONE)
    assert legacy.before == "<s> [INST] Hi [/INST] "
    assert translate({"prompt": prompt, "return_full_text": False}, NONE).before == ""
    begun = [*messages, {"role": "assistant", "content": "Once"}]
    asked = {"messages": begun, "continue_final_message": True, "return_full_text": True}
    assert translate(asked, NONE).before == "<s> [INST] Hi [/INST] Once"


def test_the_space_before_the_generated_text_belongs_to_a_text_it_continues() -> None:
    def keeps(prompt: str, **more: Any) -> bool:
        return translate({"prompt": prompt, **more}, NONE).keep_space

    assert not keeps("Hi")
    assert keeps("Hi", return_full_text=True)
    assert not keeps("Hi ", return_full_text=True)
    assert keeps("[INST] Hi [/INST] Once")
    assert not keeps("[INST] Hi [/INST] Once ")


def test_which_requests_are_older() -> None:
    assert not is_legacy({"messages", "model", "temperature", "top_k", "stream"})
    assert is_legacy({"prompt"})
    assert is_legacy({"messages", "max_new_tokens"})
    assert is_legacy({"messages", "use_cache"})


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
def test_harmless_arguments_change_nothing(name: str) -> None:
    for value in (True, False, 5, "dynamic", {"a": 1}):
        assert chat({name: value}) == {}


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_unavailable_arguments_are_refused_unless_they_ask_for_nothing(name: str) -> None:
    for neutral in [*UNSUPPORTED[name].neutral, None]:
        assert chat({name: neutral}) == {}
    error = refused({name: 0.123})
    assert error.param == name
    assert UNSUPPORTED[name].instead in str(error)
