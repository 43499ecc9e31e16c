"""The stand-in itself: what it routes where, holds back nothing, and refuses; and the real clients
against it. A small echo stands behind it here; tests/container has the container there."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Router
from truss.remote.baseten.api import BasetenApi
from truss.remote.baseten.auth import ApiKeyCredential, AuthService
from truss.remote.baseten.custom_types import TrussUserEnv

from tests.support import baseten as platform
from tests.support import user as users
from tests.support.baseten import Baseten, Deployment
from tests.support.user import User


class Echo:
    """Answers with what it was sent; at /drip, a piece and then nothing until `go_on` is set."""

    def __init__(self) -> None:
        self.go_on, self.left = threading.Event(), threading.Event()
        self.app = Router(default=self.answer)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response: Response
        if request.url.path == "/drip":
            response = StreamingResponse(self.drip(), media_type="text/plain")
        else:
            body = (await request.body()).decode()
            seen: dict[str, Any] = {
                "method": request.method,
                "path": request.url.path,
                "body": body,
            }
            seen |= {"query": request.url.query, "headers": dict(request.headers)}
            response = JSONResponse(seen, 207 if "odd" in body else 200, {"x-echo": "yes"})
        await response(scope, receive, send)

    async def drip(self) -> AsyncIterator[str]:
        yield "first"
        try:
            while not self.go_on.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.left.set()
            raise
        yield "second"


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def service(echo: Echo) -> Iterator[Baseten]:
    with platform.serving(echo.app) as upstream, platform.running(upstream) as service:
        yield service


@pytest.fixture(scope="module")
def deployment(service: Baseten, pushed: Callable[[str], Deployment]) -> Deployment:
    """What `make push` uploaded, deployed on this service too."""
    theirs = pushed("mistral-7b")
    service.uploads[theirs.s3_key] = theirs.archive
    api(service).create_model_from_truss(*as_pushed(theirs))
    return service.newest


def api(service: Baseten) -> BasetenApi:
    """Truss's own client of the GraphQL API."""
    return BasetenApi(service.url, AuthService(ApiKeyCredential(api_key=service.key)))


def as_pushed(deployment: Deployment) -> tuple[Any, ...]:
    config = platform.encoded(deployment.config)
    name = deployment.model.name
    return name, deployment.s3_key, config, "MINOR", TrussUserEnv.collect()


def post(service: Baseten, path: str, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Api-Key {service.key}", **options.pop("headers", {})}
    return httpx.post(f"{service.url}{path}", headers=headers, trust_env=False, **options)


# --- routes ---


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/model-{model}/production/predict", "/v1/models/model:predict"),
        ("/model-{model}/environments/production/predict", "/v1/models/model:predict"),
        ("/model-{model}/deployment/{deployment}/predict", "/v1/models/model:predict"),
        ("/model_versions/{deployment}/predict", "/v1/models/model:predict"),
        ("/model-{model}/production/sync/v1/chat/completions", "/v1/chat/completions"),
        ("/model-{model}/environments/production/sync/metrics", "/metrics"),
        ("/model-{model}/deployment/{deployment}/sync/tokenize", "/tokenize"),
        ("/{model}/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_a_request_reaches_the_container(
    service: Baseten, deployment: Deployment, path: str, arrives: str
) -> None:
    path = path.format(model=deployment.model.id, deployment=deployment.id)
    got = post(service, f"{path}?a=1&b=%2F", content='{"p": "Rhône"}').json()
    assert (got["method"], got["path"], got["query"]) == ("POST", arrives, "a=1&b=%2F")
    assert got["body"] == '{"p": "Rhône"}'


def test_a_draft_is_reached_as_development_alone(service: Baseten, deployment: Deployment) -> None:
    _, s3_key, config, _, environment = as_pushed(deployment)
    api(service).create_development_model_from_truss("a draft", s3_key, config, environment)
    draft = service.newest.model.id
    assert post(service, f"/model-{draft}/development/predict").status_code == 200
    assert post(service, f"/model-{draft}/production/predict").status_code == 404
    assert post(service, f"/model-{deployment.model.id}/development/predict").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/model-nobody/production/predict",
        "/model-{model}/environments/nowhere/predict",
        "/model-{model}/environments/nowhere/sync/v1/models",
        "/model-{model}/deployment/none/predict",
        "/model_versions/none/predict",
        "/nobody/v1/chat/completions",
    ],
)
def test_what_is_not_there_is_a_404(service: Baseten, deployment: Deployment, path: str) -> None:
    response = post(service, path.format(model=deployment.model.id))
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)


def test_headers_and_status_come_through_and_the_key_does_not(
    service: Baseten, deployment: Deployment
) -> None:
    path = f"/model-{deployment.model.id}/production/predict"
    headers = {"X-Mine": "1", "Content-Type": "application/x-mine"}
    response = post(service, path, content="odd", headers=headers)
    assert (response.status_code, response.headers["x-echo"]) == (207, "yes")
    seen = response.json()["headers"]
    assert (seen["x-mine"], seen["content-type"]) == ("1", "application/x-mine")
    assert "x-baseten-request-id" in seen
    assert service.key not in response.text


# --- keys ---


@pytest.mark.parametrize("scheme", ["Api-Key", "Bearer"])
def test_both_schemes_are_taken(service: Baseten, deployment: Deployment, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {service.key}"}
    path = f"/{deployment.model.id}/v1/models"
    assert post(service, path, headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["", "Api-Key", "Api-Key wrong", "Basic {key}", "{key}"])
def test_anything_else_is_a_401_everywhere(
    service: Baseten, deployment: Deployment, header: str
) -> None:
    headers = {"Authorization": header.format(key=service.key)}
    model = deployment.model.id
    for path in (
        "/graphql/",
        f"/v1/models/{model}/environments",
        f"/model-{model}/production/predict",
        f"/model-{model}/production/sync/v1/models",
        f"/model_versions/{deployment.id}/predict",
        f"/{model}/v1/chat/completions",
    ):
        assert post(service, path, headers=headers).status_code == 401


# --- streams ---


def test_nothing_is_held_back(service: Baseten, deployment: Deployment, echo: Echo) -> None:
    url = f"{service.url}/model-{deployment.model.id}/production/sync/drip"
    headers = {"Authorization": f"Bearer {service.key}"}
    with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=20) as response:
        pieces = response.iter_text()
        assert next(pieces) == "first"  # while the second has not been sent
        echo.go_on.set()
        assert list(pieces) == ["second"]
    echo.go_on.clear()


def test_a_client_that_leaves_is_noticed(
    service: Baseten, deployment: Deployment, echo: Echo
) -> None:
    url = f"{service.url}/model-{deployment.model.id}/production/sync/drip"
    headers = {"Authorization": f"Bearer {service.key}"}
    with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=20) as response:
        assert next(response.iter_text()) == "first"
    assert echo.left.wait(20)


def test_a_container_that_is_gone_is_a_502(pushed: Callable[[str], Deployment]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        upstream = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with platform.running(upstream) as service:
        service.uploads["key"] = b""
        deployed = pushed("mistral-7b")
        name, _, config, *rest = as_pushed(deployed)
        api(service).create_model_from_truss(name, "key", config, *rest)
        path = f"/model-{service.newest.model.id}/production/predict"
        assert post(service, path).status_code == 502


# --- the real truss predict ---


@pytest.fixture(scope="module")
def caller(
    service: Baseten, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> User:
    """A user of this service, whose config.yaml is that of the deployed model."""
    return users.move_in(service, tmp_path_factory.mktemp("caller"))


def test_truss_predict_reaches_the_published_deployment(caller: User) -> None:
    done = caller.truss("predict", "--published", "-d", '{"prompt": "x"}')
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout[done.stdout.index("{") :])
    assert got["path"] == "/v1/models/model:predict"
    assert json.loads(got["body"]) == {"prompt": "x"}


def test_make_predict_sends_an_example(caller: User) -> None:
    done = caller.make("predict")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout[done.stdout.index('{\n  "method"') :])
    assert "What is the Mistral wind?" in got["body"]


def test_truss_predict_says_that_there_is_no_development_deployment(caller: User) -> None:
    """A custom server is always published, so the earlier documents' line needs `--published`."""
    done = caller.truss("predict", "-d", '{"prompt": "x"}')
    assert done.returncode != 0
    assert "No development model found" in done.stdout + done.stderr
