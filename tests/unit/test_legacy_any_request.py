"""Any request in the legacy format is translated, or rejected by name."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from predict.errors import RequestError
from predict.legacy.parameters import CHAT, LEGACY, MAPPED, NO_EFFECT, UNSUPPORTED
from predict.legacy.requests import LegacyRequest, finish, is_legacy, translate
from predict.settings import Settings

from tests.support.legacy import PROMPT_TOKENS, ids, settings

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

likely = st.sampled_from([0, 1, 2, 5, 0.5, 1.0, 512, True, False, "a", ["a"], [2], [[7]], [[7, 8]]])

requests = st.dictionaries(
    st.sampled_from(sorted(LEGACY | CHAT)), likely | json_values, max_size=6
)  # fmt: skip

taken = {
    "positive integer": st.integers(1, 30),
    "non-negative integer": st.integers(0, 30),
    "integer": st.integers(-1, 50),
    "number": st.floats(0, 2),
    "boolean": st.booleans(),
    'boolean or "never"': st.sampled_from([True, False, "never"]),
    "string or list of strings (not empty)": st.sampled_from(["a", ["a", "b"]]),
    "token id or list of token ids (not empty)": st.integers(0, 9) | ids,
    "list of token ids": st.lists(st.integers(0, 9)),
    "list of lists of token ids (not empty)": st.lists(ids, max_size=2),
    "list of [[token id], bias of -100 to 100]": st.just([[[7], 1.5]]),
    "object": st.dictionaries(st.sampled_from(["max_new_tokens", "num_beams", "n"]), st.just(2)),
}

one_argument = st.sampled_from(sorted(MAPPED)).flatmap(
    lambda name: st.tuples(st.just(name), taken[MAPPED[name].takes])
)

well_formed = st.lists(one_argument, max_size=4).map(
    lambda pairs: {"prompt": "Hello", **dict(pairs)}
)


def outcome(
    request: dict[str, Any], settings: Settings
) -> RequestError | tuple[LegacyRequest, dict[str, Any]]:
    try:
        legacy = translate(request, settings)
        words = [f"word{ids}" for ids in legacy.bad_words_ids]
        return legacy, finish(legacy, PROMPT_TOKENS, words)
    except RequestError as error:
        return error


@given(requests | well_formed, settings)
def test_any_request_is_translated_or_refused_by_name(
    request: dict[str, Any], settings: Settings
) -> None:
    match outcome(request, settings):
        case RequestError(param=param):
            nothing_to_answer = not {"prompt", "messages"} & set(request)
            inner = request.get("generation_config")
            assert param in {*request, *(inner if isinstance(inner, dict) else {})} or (
                param == "prompt" and nothing_to_answer
            )
        case legacy, body:
            assert set(body) <= CHAT
            assert not dropped_names(request, legacy, body)


def dropped_names(
    request: dict[str, Any], legacy: LegacyRequest, body: dict[str, Any]
) -> list[str]:
    """The names given that left no trace, and should have."""
    dropped = []
    for name, value in request.items():
        if value is None or name in NO_EFFECT or name in UNSUPPORTED or name == "generation_config":
            continue
        if name == "prompt":
            traced = "messages" in body
        elif name in MAPPED:
            traced = _traced(name, value, request, legacy, body)
        else:
            traced = name in body or name == "max_completion_tokens"
        if not traced:
            dropped.append(name)
    return dropped


def _traced(
    name: str, value: Any, request: dict[str, Any], legacy: LegacyRequest, body: dict[str, Any]
) -> bool:
    greedy = body.get("temperature") == 0
    inner = request.get("generation_config") or {}
    beams = body.get("use_beam_search") is True
    match name:
        case "return_full_text":
            return (
                bool(legacy.before) or not value or not (request.get("prompt") or body["messages"])
            )
        case "max_length":  # max_new_tokens goes before it
            return "max_tokens" in body
        case "min_length":
            return "min_tokens" in body
        case "early_stopping" | "length_penalty" if not beams:
            return True
        case "early_stopping":
            return bool(value != True)  # noqa: E712  vLLM's search is what the others ask for
        case "top_p" | "top_k" | "min_p" | "do_sample" if greedy:
            return True
        case "do_sample":
            return value is True
        case "num_return_sequences" | "num_beams":
            return value == 1 or "n" in body
        case "output_scores" | "output_logits" if value is False:
            return True
        case "bad_words_ids" | "suppress_tokens" | "sequence_bias" if value == []:
            return True
        case "bad_words_ids":
            return "logit_bias" in body or "bad_words" in body
    return any(field in body for field in MAPPED[name].fields) or name in inner


openai_requests = st.dictionaries(st.sampled_from(sorted(CHAT)), json_values)


@given(openai_requests)
def test_a_request_of_openai_s_names_is_left_alone(request: dict[str, Any]) -> None:
    assert is_legacy({"messages": [], **request}) is False
