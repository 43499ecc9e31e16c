"""Requests that are just within each limit, and requests that exceed it."""

from typing import Any

from predict.settings import DEFAULT_LIMITS, RequestLimits

NO_LIMITS: RequestLimits = dict.fromkeys(DEFAULT_LIMITS)


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
# a limit, its number, what is within it, what exceeds it
AT_MOST: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    ("values", 3, {"user": [[], []]}, {"user": [[], [], []]}),
    ("depth", 3, {"a": [[]]}, {"a": [[[]]]}),
    ("messages", 2, {"messages": [{"role": "a"}] * 2}, {"messages": [{"role": "a"}] * 3}),
    ("messages", 1, {"input": [{"role": "a"}]}, {"input": [{"type": "a"}] * 2}),
    ("parts", 2, user({"type": "text"}, "a"), user({"type": "text"}, "a", "b")),
    ("parts", 2, user({"content": [{}]}), user({"content": [{}, {}]})),
    ("prompts", 2, {"prompt": ["a", "b"]}, {"prompt": ["a", "b", "c"]}),
    ("prompts", 2, {"prompt": [[1, 2, 3]] * 2}, {"prompt": [[1]] * 3}),
    ("prompts", 4, {"prompt": ["a", "b"], "n": 2}, {"prompt": ["a", "b"], "n": "3"}),
    ("answers", 2, {"n": 2}, {"n": 3}),
    ("answers", 2, {"n": "2"}, {"n": "3"}),
    ("answers", 2, {"n": " +2.0"}, {"n": "0__3"}),  # as pydantic reads them
    ("answers", 2, {"num_return_sequences": 2}, {"num_return_sequences": 3.0}),
    ("answers", 2, {"generation_config": {}}, {"generation_config": {"num_return_sequences": 3}}),
    ("work", 20, {"n": 10, "stop": ["a"]}, {"n": 10, "stop": ["a", "b"]}),
    ("work", 82, {"n": 2, "top_logprobs": 1}, {"n": 2, "top_logprobs": 2}),
    ("work", 4, {"prompt": ["a", "b"], "n": 2}, {"prompt": ["a", "b"], "n": 3}),
    ("work", 82, {"n": 2, "logprob_token_ids": [1]}, {"n": 2, "logprob_token_ids": [1, 2]}),
    ("work", 4, {"n": 2, "logit_bias": {"7": 1}}, {"n": 2, "allowed_token_ids": [*range(16)]}),
    (
        "work",
        18,
        {"n": 2, "repetition_detection": {"max_pattern_size": 4, "min_count": 2}},
        {"n": 2, "repetition_detection": {"max_pattern_size": "0__5", "min_count": 2}},
    ),
    ("stream_interval", 9, {"stream_interval": "9"}, {"stream_interval": "0__10"}),
    (
        "work",
        6,
        {"num_return_sequences": 3, "bad_words_ids": [[1]]},
        {"generation_config": {"num_return_sequences": 3}, "stop_strings": ["a", "b"]},
    ),
    ("repeated_bytes", 50, {"n": 2, "echo": True}, {"n": 3, "echo": True}),
    ("repeated_bytes", 9, {"return_token_ids": True}, {"n": 2, "return_token_ids": 1}),
    ("repeated_bytes", 100, {"use_beam_search": True}, {"use_beam_search": True, "a": 1}),
    ("repeated_bytes", 128, {"num_beams": 2}, {"generation_config": {"num_beams": 2}}),
    ("repeated_bytes", 15, {"num_beams": 1}, {"num_beams": 2}),
    ("repeated_bytes", 9, {"use_beam_search": "False"}, {"use_beam_search": "1"}),
    (
        "repeated_bytes",
        99,
        {"num_beams": 1, "generation_config": {"num_beams": 9}},
        {"num_beams": None, "generation_config": {"num_beams": 9}},
    ),
    (
        "repeated_bytes",
        40,
        {"prompt": ["a", "b"], "text": {}},
        {"prompt": ["a"] * 9, "text": {"a": 5}},
    ),
    ("answered_bytes", 60, {"prompt": "abc", "n": 2}, {"prompt": "abc", "n": 3}),
    (
        "answered_images",
        3,
        {**user({"type": "image_url", "image_url": "data:a"}), "n": 3},
        {**user({"image_url": {"url": "data:a"}}, {"image_url": "data:b"}), "n": 2},
    ),
    (
        "answered_images",
        3,
        {**user({"type": "image", "source": {"url": "https://a"}}), "n": 3},
        {**user({"image_url": "https://a", "source": {}}), "n": 4},
    ),
    (
        "answered_images",
        3,
        {**user({"image_url": "data:a"}), "num_beams": 3, "n": 1},
        {**user({"image_url": "data:a"}, {"image_url": "data:b"}), "num_beams": 2},
    ),
    ("answered_bytes", 60, {"n": 1, "user": "a" * 60}, {"num_return_sequences": 9}),
    (
        "repetition_tokens",
        8,
        {"repetition_detection": {"max_pattern_size": 4, "min_count": 2}},
        {"repetition_detection": {"max_pattern_size": 5, "min_count": "2"}},
    ),
    (
        "repetition_tokens",
        8,
        {"repetition_detection": {"max_pattern_size": "0__8", "min_count": 1}},
        {"repetition_detection": {"max_pattern_size": 1e200, "min_count": 1e200}},
    ),
    ("stop_strings", 1, {"stop": ["a"]}, {"stop": ["a", "b"]}),
    ("stop_strings", 1, {"stop_sequences": ["a"]}, {"stop_sequences": ["a", "b"]}),
    ("string_length", 2, {"stop": "ab"}, {"stop": "abc"}),
    ("string_length", 2, {"bad_words": ["ab"]}, {"bad_words": ["a", "abc"]}),
    ("bad_words", 1, {"bad_words": ["a"]}, {"bad_words": ["a", "b"]}),
    ("bad_words_bytes", 3, {"bad_words": ["a", "ä"]}, {"bad_words": ["a", "äb"]}),
    ("bad_words_bytes", 3, {"bad_words_ids": [[7, 8, 9]]}, {"bad_words_ids": [[7, 8], [7, 9]]}),
    ("token_ids", 1, {"logit_bias": {"1": 1}}, {"logit_bias": {"1": 1, "2": 1}}),
    ("token_ids", 1, {"suppress_tokens": [1]}, {"suppress_tokens": [1, 2]}),
    (
        "token_ids",
        2,
        {"suppress_tokens": [1, 2]},
        {"suppress_tokens": [1, 2], "logit_bias": {"3": 1}},
    ),
    ("stop_tokens", 1, {"stop_token_ids": [1]}, {"stop_token_ids": [1, 2]}),
    ("stop_tokens", 1, {"eos_token_id": 1}, {"eos_token_id": [1, 2]}),
    ("vocabulary", 9, {"tokens": [0, 8]}, {"tokens": [9]}),
    ("vocabulary", 9, {"logit_bias": {"8": 1}}, {"logit_bias": {"-1": 1}}),
    ("vocabulary", 9, {"bad_words_ids": [[8, 8]]}, {"bad_words_ids": [[8], [8, 9]]}),
    ("vocabulary", 9, {"eos_token_id": 8}, {"eos_token_id": 9}),
    ("logprobs", 2, {"top_logprobs": 2}, {"top_logprobs": 3}),
    ("logprobs", 2, {"logprobs": True}, {"logprobs": 3}),
    ("prompt_logprobs", 2, {"prompt_logprobs": 2}, {"prompt_logprobs": 3}),
    ("tools", 1, {"tools": [{}]}, {"tools": [{}, {}]}),
    ("schema_bytes", 60, {"text": SCHEMA}, {"tools": [SCHEMA, SCHEMA]}),
    ("schema_depth", 3, {"text": SCHEMA}, {"text": {"format": SCHEMA}}),
    ("text_bytes", 20, {"prompt": "abc"}, {"prompt": "abcdefghijk"}),
]
