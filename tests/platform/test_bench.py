"""`make bench URL=` against a deployment on the platform: what it asks, and what it refuses; and of
what the servers are made that it starts here."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench import deployment, servers
from deploy import baseten, cards
from scripts import bench
from tests.support import baseten as platform
from tests.support.baseten import Baseten, Deployment, Environment, Model


class Container:
    """OpenAI's routes, as far as they are asked, and a count of who asked with what."""

    def __init__(self) -> None:
        self.models, self.status, self.asked_for = 200, 200, set[str]()
        routes = [Route("/v1/models", self.list)]
        routes.append(Route("/v1/chat/completions", self.chat, methods=["POST"]))
        self.app = Starlette(routes=routes)

    async def list(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": "another"}, {"id": "mistral-7b"}]}, self.models)

    async def chat(self, request: Request) -> Response:
        asked = await request.json()
        self.asked_for.add(asked["model"])
        if "stream" not in asked:
            return JSONResponse({"choices": []})
        if self.status != 200:
            return JSONResponse({"error": "full"}, self.status)

        async def events() -> AsyncIterator[str]:
            for word in ("a", " b", " c"):
                yield f"data: {json.dumps({'choices': [{'delta': {'content': word}}]})}\n\n"
            yield f"data: {json.dumps({'usage': {'completion_tokens': 3}})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def container() -> Container:
    return Container()


@pytest.fixture
def service(container: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[Baseten]:
    """Baseten with one deployment, which runs in the container, and the key in the environment."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(
        deployment, "QUICK_LOADS", [replace(it, requests=2) for it in deployment.QUICK_LOADS]
    )
    with platform.serving(container.app) as upstream, platform.running(upstream) as service:
        environment = Environment("production")
        model = Model("abc", "Winds", "Winds", environments={"production": environment})
        environment.deployment = Deployment("def", model, "", b"", {}, False)
        service.models["abc"] = model
        monkeypatch.setenv(baseten.KEY, service.key)
        yield service


def measured(
    service: Baseten, path: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code, and the last line that was said; nowhere the key."""
    code = bench.main(["--url", f"{service.url}/{path}", "--quick", "--output", str(folder)])
    said = capsys.readouterr()
    written = [file.read_text() for file in folder.rglob("*") if file.is_file()]
    assert service.key not in "".join([said.out, said.err, *written])
    return code, (said.out + said.err).splitlines()[-1]


@pytest.mark.parametrize("path", ["abc/v1", "model-abc/environments/production/sync"])
def test_a_deployment_is_measured_by_either_address(
    service: Baseten,
    container: Container,
    path: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(deployment.VLLM_KEY, "another-key-of-the-user-s")
    code, said = measured(service, path, tmp_path, capsys)
    assert code == 0, said
    files = {it.relative_to(tmp_path).as_posix() for it in tmp_path.rglob("*") if it.is_file()}
    figures, plot = "benchmarks/deployment.json", "benchmarks/deployment.svg"
    assert files == {"benchmarks.md", figures, plot}
    assert plot in (tmp_path / "benchmarks.md").read_text()
    results: dict[str, Any] = json.loads((tmp_path / figures).read_text())
    assert container.asked_for == {"mistral-7b"}
    assert list(results["rounds"][0]) == ["1", "16"]
    assert results["rounds"][0]["16"]["deployment"]["tokens_per_s"] > 0


def test_a_gateway_without_the_route_of_models_is_asked_by_the_card_s_name(
    service: Baseten, container: Container, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    container.models = 404
    code, said = measured(service, "abc/v1", tmp_path, capsys)
    assert code == 0, said
    assert container.asked_for == {"mistral-7b"}


def test_a_wrong_key_is_one_line(
    service: Baseten,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(baseten.KEY, "wrong")
    code, said = measured(service, "abc/v1", tmp_path, capsys)
    assert code == 1
    assert "the key was refused (the API key is missing or wrong): BASETEN_API_KEY's" in said


def test_a_missing_key_is_one_line(
    service: Baseten,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(baseten.KEY)
    code, said = measured(service, "abc/v1", tmp_path, capsys)
    assert code == 1
    assert said.endswith("/abc/v1 wants a key: export BASETEN_API_KEY")


@pytest.mark.parametrize("path", ["none/v1", "model-abc/environments/none/sync"])
def test_an_address_without_a_deployment_is_one_line(
    service: Baseten, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = measured(service, path, tmp_path, capsys)
    assert code == 1
    assert "/v1/chat/completions was not found with this key" in said
    assert not (tmp_path / "benchmarks.md").exists()


def test_refused_requests_are_no_figures(
    service: Baseten, container: Container, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    container.status = 503
    code, said = measured(service, "abc/v1", tmp_path, capsys)
    assert code == 1
    assert said.endswith("1 of 1 requests failed at one stream, deployment: Service Unavailable")
    assert not (tmp_path / "benchmarks.md").exists()


def test_servers_start_their_engine_as_the_image_does() -> None:
    """The plugins of a local run have it forked, which would shorten ours and no bare server's."""
    image = servers.truss(cards.load("mistral-7b")).image
    assert list(image.mounts) == ["/models/mistral-7b"]
