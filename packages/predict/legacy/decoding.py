"""How tokens are chosen, and where an answer ends: transformers' arguments → vLLM's fields.

Promises: each function reads the arguments in `given`, already in their types, and sets the fields
in `chat`; a value from the client wins over a default. Refuses, with a `RequestError` that names
it, what vLLM would ignore or understand differently.
"""

from collections.abc import Mapping
from typing import Any

from predict.errors import RequestError
from predict.legacy.parameters import BAN, BEAMS, MAPPED, VLLM
from predict.settings import Settings

MOST_BEAMS = 10  # vLLM ranks twice as many candidates as beams, from at most 20 log probabilities


def sampling(
    given: Mapping[str, Any], chat: dict[str, Any], answers: int, settings: Settings
) -> None:
    """Sets greedy decoding or sampling."""
    do_sample = given.get("do_sample", True)
    if do_sample:
        for name, default in settings.sampling.items():
            chat.setdefault(name, default)
    else:
        _greedy(chat)
    greedy = chat.get("temperature", 1) == 0
    if greedy and "do_sample" in given and do_sample:
        raise RequestError(
            "'temperature' must be above 0 when 'do_sample' is true; "
            "for greedy decoding set 'do_sample' to false",
            "temperature",
        )
    if greedy and answers > 1:
        raise RequestError(
            f"'num_return_sequences' is {answers}, and greedy decoding has one answer; "
            "set 'temperature' above 0 without 'do_sample': false, or use 'num_beams'",
            "num_return_sequences",
        )
    if answers > 1:
        chat["n"] = answers


def beam_search(given: Mapping[str, Any], chat: dict[str, Any], answers: int) -> None:
    """Sets beam search; refuses what vLLM would ignore in it."""
    width = given.get("num_beams", answers)  # with `use_beam_search`, as many beams as answers
    if given.get("use_beam_search") is False:
        raise RequestError(
            f"'use_beam_search' is false and 'num_beams' is {width}; send one", "use_beam_search"
        )
    if width > MOST_BEAMS:
        name = "num_beams" if "num_beams" in given else "n"
        raise RequestError(f"'{name}' is {width}; at most {MOST_BEAMS} beams are possible", name)
    if answers > width:
        raise RequestError(
            f"'num_return_sequences' is {answers}, more than 'num_beams', {width}",
            "num_return_sequences",
        )
    if given.get("do_sample"):
        raise RequestError(
            "'do_sample' with 'num_beams' above 1 (beam sampling) is not available in vLLM: "
            "leave one of them out",
            "do_sample",
        )
    if given.get("early_stopping") is True:
        raise RequestError(
            "'early_stopping': true is not available in vLLM, whose beam search goes on to the "
            'end: use false or "never"',
            "early_stopping",
        )
    for name, value in given.items():
        acts = MAPPED[name].beams if name in MAPPED else name not in VLLM or name in BEAMS
        asks_for_nothing = value in (0, [], {}) or (name, value) == ("repetition_penalty", 1)
        if not acts and not asks_for_nothing:
            raise RequestError(f"'{name}' has no effect on vLLM's beam search: leave it out", name)
    _greedy(chat)
    chat.update(use_beam_search=True, n=width)


def _greedy(chat: dict[str, Any]) -> None:
    for name in ("top_p", "top_k", "min_p"):
        chat.pop(name, None)
    chat["temperature"] = 0


def stops(given: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Sets what ends an answer. transformers keeps it in the output; `stop` does not."""
    strings, ids = given.get("stop_strings"), given.get("eos_token_id")
    for name in ("stop_strings", "eos_token_id"):
        for other in ("stop", "stop_token_ids"):
            if name in given and other in given:
                raise RequestError(f"'{name}' and '{other}' were both given; send one", name)
    if strings is not None:
        chat["stop"] = strings
    if ids is not None:
        chat["stop_token_ids"] = ids
        chat.setdefault("ignore_eos", True)  # transformers uses them instead of the model's own
    if strings is not None or ids is not None:
        chat.setdefault("include_stop_str_in_output", True)


def biases(given: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Sets the biases of single tokens. As in transformers, a ban overrides a bias."""
    wanted = {str(token): (bias, "sequence_bias") for token, bias in given.get("sequence_bias", [])}
    for token in given.get("suppress_tokens", []):
        wanted[str(token)] = (BAN, "suppress_tokens")
    for ids in given.get("bad_words_ids", []):
        if len(ids) == 1:
            wanted[str(ids[0])] = (BAN, "bad_words_ids")
    biases = dict(given.get("logit_bias", {}))
    for token, (bias, name) in wanted.items():
        if biases.get(token, bias) != bias:
            raise RequestError(f"'{name}' and 'logit_bias' both bias token {token}", name)
        biases[token] = bias
    if biases:
        chat["logit_bias"] = biases
