"""For benchmarks only: one vLLM server with and without the middleware, for use in one run.

Requests under /bare go to vLLM as they would without the middleware, all others through it.
"""

from predict.app import Gateway
from predict.asgi import App, Receive, Scope, Send, to_path

BARE = "/bare"


class Bypass:
    def __init__(self, app: App) -> None:
        self.app = app
        self.gateway = Gateway(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith(f"{BARE}/"):
            await self.app(to_path(scope, path.removeprefix(BARE)), receive, send)
        else:
            await self.gateway(to_path(scope, path) if path else scope, receive, send)
