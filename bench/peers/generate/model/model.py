"""A model with transformers' `generate` in a thread and a streamer, as `model.py` files did it.

The prompt is used as it comes, without a template; whatever else a request has, but for `stream`,
is an argument of `generate`.
"""

import os
from collections.abc import Iterator
from threading import Thread
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    TextIteratorStreamer,
)

SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "top_k": 50}


class Model:
    def __init__(self, **kwargs: Any) -> None:
        self.model: Any = None
        self.tokenizer: Any = None

    def load(self) -> None:
        model, dtype = os.environ["PEER_MODEL"], os.environ["PEER_DTYPE"]
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(model)

    def preprocess(self, request: dict[str, Any]) -> dict[str, Any]:
        defaults = {"max_new_tokens": 128, **SAMPLING, "eos_token_id": self.tokenizer.eos_token_id}
        stream, prompt = request.pop("stream", False), request.pop("prompt")
        return {"prompt": prompt, "stream": stream, "arguments": {**defaults, **request}}

    def predict(self, request: dict[str, Any]) -> Iterator[str] | str:
        inputs = self.tokenizer(request["prompt"], return_tensors="pt").input_ids
        arguments = {
            "inputs": inputs,
            "generation_config": GenerationConfig(**request["arguments"]),
        }
        if request["stream"]:
            return self.pieces(arguments)
        output = self.model.generate(**arguments)
        return str(self.tokenizer.decode(output[0][inputs.shape[1] :], skip_special_tokens=True))

    def pieces(self, arguments: dict[str, Any]) -> Iterator[str]:
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        scores = {"output_scores": True, "return_dict_in_generate": True}
        thread = Thread(
            target=self.model.generate, kwargs={**arguments, **scores, "streamer": streamer}
        )
        thread.start()
        yield from streamer
        thread.join()
