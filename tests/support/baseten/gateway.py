"""model-{id}.api.baseten.co and bridge.baseten.co: requests for the container.

Promises: a request reaches the container unchanged, except for hop-by-hop headers and the key; the
answer comes back piece by piece, unbuffered. Rejects a path that names no deployment.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.support.baseten.state import Baseten, RejectedError, find_environment

# Hop-by-hop headers (RFC 9110, 7.6.1), and those that end at the platform
ITS_OWN = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
ITS_OWN |= {"authorization", "host"}

ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]

DEPLOYMENTS = ("production", "development", "environments/{environment}", "deployment/{deployment}")


class Gateway:
    def __init__(self, baseten: Baseten) -> None:
        self.baseten = baseten
        self.routes = []
        for which in DEPLOYMENTS:
            at = f"/model-{{model}}/{which}"
            self.routes += [
                Route(f"{at}/predict", self.predict, methods=["POST"]),
                Route(f"{at}/sync/{{path:path}}", self.pass_on, methods=ANY_METHOD),
            ]
        self.routes += [
            # as printed in the seeds
            Route("/model_versions/{deployment}/predict", self.predict, methods=["POST"]),
            Route("/{model}/v1/{path:path}", self.bridge, methods=ANY_METHOD),
        ]

    async def predict(self, request: Request) -> Response:
        self._check_deployment(request)
        return await self._forward(request, "v1/models/model:predict")

    async def pass_on(self, request: Request) -> Response:
        self._check_deployment(request)
        return await self._forward(request, request.path_params["path"])

    async def bridge(self, request: Request) -> Response:
        self.baseten.check_key(request)
        self.baseten.find(request.path_params["model"])
        return await self._forward(request, f"v1/{request.path_params['path']}")

    def _check_deployment(self, request: Request) -> None:
        """Rejects a path that names no deployment."""
        self.baseten.check_key(request)
        names = request.path_params
        if "deployment" in names:
            model = self.baseten.find_deployment(names["deployment"]).model
            if names.get("model", model.id) != model.id:
                raise RejectedError(404, "no such deployment of this model")
            return
        model = self.baseten.find(names["model"])
        which = names.get("environment") or request.url.path.split("/")[2]
        if which == "development":
            if not any(deployment.draft for deployment in model.deployments):
                raise RejectedError(404, "the model has no development deployment")
        elif find_environment(model, which).deployment is None:
            raise RejectedError(404, f"nothing is deployed in the environment {which}")

    async def _forward(self, request: Request, path: str) -> Response:
        headers = [(k, v) for k, v in request.headers.items() if k not in ITS_OWN]
        headers.append(("x-baseten-request-id", secrets.token_hex(8)))
        has_body = not {"content-length", "transfer-encoding"}.isdisjoint(request.headers)
        query = request.url.query
        onward = httpx.Request(  # client.build_request would add headers
            request.method,
            f"{self.baseten.upstream}/{path}" + (f"?{query}" if query else ""),
            headers=headers,
            content=request.stream() if has_body else None,
        )
        try:
            answer = await self._http.send(onward, stream=True)
        except httpx.TransportError as error:
            raise RejectedError(502, f"the container does not answer: {error!r}") from error

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:  # also if the client has disconnected: this stops the generation
                await answer.aclose()

        response = StreamingResponse(pieces(), answer.status_code)
        response.raw_headers = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode() not in ITS_OWN
        ]
        return response

    @asynccontextmanager
    async def client(self, app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=None, trust_env=False) as self._http:
            yield
