"""A fake of Baseten, to the extent that this project's users need it: one server on loopback.

Promises: the unmodified `truss push` and `truss predict` work against it. state.py and the module
of each host say what is kept and what is rejected. The first part of a path stands for the host:

    /graphql/                                   app.baseten.co           graphql.py
    /uploads/…                                  the S3 bucket of pushes  uploads.py
    /v1/models/…                                api.baseten.co           management.py
    /model-{model}/…, /model_versions/…         model-….api.baseten.co   gateway.py
    /{model}/v1/…                               bridge.baseten.co        gateway.py
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from tests.support.baseten.gateway import Gateway
from tests.support.baseten.graphql import GraphQL, encoded
from tests.support.baseten.management import Management
from tests.support.baseten.state import Baseten, Deployment, Environment, Model, RejectedError
from tests.support.baseten.uploads import Uploads

__all__ = ["Baseten", "Deployment", "Environment", "Model", "encoded", "running", "serving"]


def application(baseten: Baseten) -> Starlette:
    gateway = Gateway(baseten)
    routes = [*GraphQL(baseten).routes, *Uploads(baseten).routes, *Management(baseten).routes]
    return Starlette(
        routes=[*routes, *gateway.routes],
        exception_handlers={RejectedError: _rejected},  # type: ignore[dict-item]
        lifespan=gateway.client,
    )


def _rejected(request: Request, rejected: RejectedError) -> Response:
    """Errors in the shapes of the real services.

    The gateway's: https://docs.baseten.co/inference/errors; the management API's for too many
    requests, https://docs.baseten.co/reference/management-api/rate-limits, and for its other errors
    the field that Truss reads, `message`.
    """
    if rejected.status == 429:
        return JSONResponse({"error": str(rejected), "retry_after": 7}, rejected.status)
    name = "message" if request.url.path.startswith("/v1/") else "error"
    return JSONResponse({name: str(rejected)}, rejected.status)


@contextmanager
def running(upstream: str) -> Iterator[Baseten]:
    """Runs the service in a thread until the end of the block."""
    baseten = Baseten(upstream)
    with serving(application(baseten)) as url:
        baseten.url = url
        yield baseten


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of an application, served in a thread until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_level="critical", ws="none", timeout_graceful_shutdown=1, loop="asyncio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve([listener])), name="fake", daemon=True
        )
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
