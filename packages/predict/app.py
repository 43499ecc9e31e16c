"""The one ASGI class that vLLM loads, `vllm serve … --middleware predict.app.Gateway`.

Promises: every request passes admission (admission.py), then reading, checks and translation
(requests/middleware.py), then vLLM, whose engine gets only constraints that were tried
(constraints/). Settings are read from the environment once, at the start.
Refuses to start, with the variable's name, when one of them cannot be read.
"""

import os

from predict import (
    continuing,
    long_prompts,
    per_token,
    prompt_logprobs,
    running,
    settings,
    tokenizing,
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
        per_token.install()
        tool_schemas.install()
        tokenizing.install()
        inner = RequestMiddleware(app, found)
        self.limits = found.limits
        self.memory = inner.memory
        self.app = AdmissionMiddleware(inner, found, inner.memory.free_slots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            receive = self._lifespan(scope, receive)
        await self.app(scope, receive, send)

    def _lifespan(self, scope: Scope, receive: Receive) -> Receive:
        from predict.constraints import readings, verdicts  # vLLM's parts are slow to import

        readings.install()
        installed: list[verdicts.Verdicts] = []

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                running.publish_memory(lambda: self.memory.taken)
                engine = scope["app"].state.engine_client
                long_prompts.install(engine)
                prompt_logprobs.install(engine, self.limits["prompt_work"])
                installed.append(verdicts.install(engine))
            else:
                for each in installed:
                    each.end()
            return message

        return heard
