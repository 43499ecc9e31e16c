"""Mixtral with vLLM's engine in the process of Truss's server, as `model.py` files did it.

The prompt is used as it comes, without a template; whatever else a request has is vLLM's
`SamplingParams`. An answer is a stream of text, made of outputs that each hold all text so far.
"""

import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM


class Model:
    def __init__(self, **kwargs: Any) -> None:
        self.engine: Any = None

    def load(self) -> None:
        model, dtype = os.environ["PEER_MODEL"], os.environ["PEER_DTYPE"]
        self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, dtype=dtype))

    async def predict(self, request: dict[str, Any]) -> AsyncIterator[str]:
        prompt = request.pop("prompt")
        sampling = SamplingParams(**request)
        sent = 0
        async for output in self.engine.generate(prompt, sampling, uuid.uuid4().hex):
            text = output.outputs[0].text
            yield text[sent:]
            sent = len(text)
