"""The ASGI class that `vllm serve --middleware predict.middleware.Predict` puts before vLLM.

Promises: POST /predict is /v1/chat/completions, so that a line copied from Baseten's documentation
needs only another host. Everything else goes through untouched.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PREDICT = "/predict"
CHAT_COMPLETIONS = "/v1/chat/completions"


class Predict:
    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PREDICT:
            scope = {**scope, "path": CHAT_COMPLETIONS, "raw_path": CHAT_COMPLETIONS.encode()}
        await self.app(scope, receive, send)
