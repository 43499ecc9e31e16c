"""The ASGI class that vLLM loads: `vllm serve … --middleware predict.app.Gateway`.

Promises: every request goes through admission (admission.py), then through reading, checks and
translation (requests/middleware.py), then to vLLM. The engine gets only constraints that were tried
(constraints/). The environment is read once, at start-up.
Refuses to start if a setting cannot be read, and names the variable.
"""

import os

from predict import (
    beams,
    continuing,
    long_prompts,
    per_token,
    prompt_logprobs,
    running,
    sampling_params,
    settings,
    tokenizing,
    unread,
    upgrades,
)
from predict.admission import AdmissionMiddleware
from predict.asgi import App, Message, Receive, Scope, Send
from predict.requests import tool_schemas
from predict.requests.middleware import RequestMiddleware


class Gateway:
    def __init__(self, app: App) -> None:
        found = settings.read(os.environ)
        upgrades.install()
        continuing.install()
        beams.install()
        per_token.install()
        tool_schemas.install()
        tokenizing.install()
        unread.install()
        inner = RequestMiddleware(app, found)
        self.limits = found.limits
        self.inner = inner
        self.app = AdmissionMiddleware(inner, found, inner.memory.free_slots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            receive = self._lifespan(scope, receive)
        await self.app(scope, receive, send)

    def _lifespan(self, scope: Scope, receive: Receive) -> Receive:
        from predict.constraints import readings, verdicts  # slow to import: they import vLLM

        readings.install()
        installed: list[verdicts.Verdicts] = []

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                running.publish_memory(lambda: self.inner.memory.taken)
                state = scope["app"].state
                self.inner.context = state.vllm_config.model_config.max_model_len
                engine = state.engine_client
                long_prompts.install(engine)
                prompt_logprobs.install(engine, self.limits["prompt_work"])
                sampling_params.install(engine)
                installed.append(verdicts.install(engine))
            else:
                for each in installed:
                    each.end()
            return message

        return heard
