"""The one ASGI class that vLLM loads, `vllm serve … --middleware predict.app.Gateway`.

Promises: every request passes admission (admission.py), then reading, checks and translation
(requests/middleware.py), then vLLM. Settings are read from the environment once, at the start.
Refuses to start, with the variable's name, when one of them cannot be read.
"""

import os

from predict import per_token, prefill, settings
from predict.admission import AdmissionMiddleware
from predict.asgi import App, Receive, Scope, Send
from predict.requests.middleware import RequestMiddleware


class Gateway:
    def __init__(self, app: App) -> None:
        found = settings.read(os.environ)
        prefill.install()
        per_token.install()
        self.app = AdmissionMiddleware(RequestMiddleware(app, found), found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
