"""What each generation of Mistral's tokenizers takes in a conversation, as data.

Promises: one row per generation, from mistral-common's own validators and encoders
(mistral_common/protocol/instruct/validator.py, tokens/tokenizers/instruct.py, 1.12). A generation
that is not listed is a `ValueError` at start-up that names the listed ones.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    tools: bool  # the tokenizer has tokens for tools, calls and results
    text_beside_calls: bool  # one assistant message may have both
    reasoning: bool  # an assistant message keeps its reasoning
    nine_character_ids: bool  # ids of calls must match [a-zA-Z0-9]{9}


GENERATIONS = {
    "v1": Generation(False, False, False, False),  # Mixtral 8x7B
    "v2": Generation(True, False, False, False),
    "v3": Generation(True, False, False, True),  # Mistral 7B v0.3, Mixtral 8x22B, Pixtral, Nemo
    "v7": Generation(True, True, False, True),  # Mistral Small 3
    "v11": Generation(True, True, False, True),
    "v13": Generation(True, True, True, False),
    "v15": Generation(True, True, True, False),
}
# The strictest: what it takes, every generation with tools takes.
DEFAULT = "v3"


def generation(name: str) -> Generation:
    if name not in GENERATIONS:
        raise ValueError(f"PREDICT_TOKENIZER is {name!r}; it takes one of {', '.join(GENERATIONS)}")
    return GENERATIONS[name]
