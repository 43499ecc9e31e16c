"""`make smoke` where there is something wrong; tests/container has it where all is well."""

import socket
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support import baseten as platform
from tests.support.user import User


@pytest.fixture(scope="module")
def half_working() -> Iterator[str]:
    """The address of a server that lists a model, echoes prompts, and fails at the rest."""

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": "mistral-7b"}]})

    async def predict(request: Request) -> Response:
        asked = await request.json()
        return JSONResponse({"output": asked["prompt"], "usage": {"completion_tokens": 99}})

    async def chat(request: Request) -> Response:
        return JSONResponse({"error": "[broken]"}, 500)

    routes = [Route("/v1/models", models), Route("/predict", predict, methods=["POST"])]
    routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
    with platform.serving(Starlette(routes=routes)) as url:
        yield url


def test_each_failure_is_a_row_and_the_exit_code_is_1(user: User, half_working: str) -> None:
    done = user.make("smoke", f"BASE_URL={half_working}")
    assert done.returncode != 0
    found = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    results = {row[1]: (row[2], row[5]) for row in found if len(row) == 7 and row[1]}
    assert {name: result for name, (result, _) in results.items()} == {
        "models list": "pass",
        "chat": "FAIL",
        "stream": "FAIL",
        "prompt": "pass",
        "max_new_tokens": "FAIL",
        "text stream": "FAIL",
        "error's shape": "FAIL",
    }
    assert results["chat"][1] == "status 500: [broken]"
    assert results["max_new_tokens"][1] == "99 tokens, expected 4"
    assert "5 of 7 checks failed: chat, stream, max_new_tokens" in done.stdout


def refused(user: User, *choices: str) -> str:
    done = user.make("smoke", *choices)
    assert done.returncode != 0
    line, *of_make = done.stderr.splitlines()
    assert all(said.startswith("make: ***") for said in of_make)
    assert user.baseten.key not in done.stdout + done.stderr
    return line


def test_a_missing_id_is_said(user: User) -> None:
    assert "MODEL_ID= is missing" in refused(user)


def test_a_wrong_id_is_said(user: User) -> None:
    base = f"{user.baseten.url}/model-abc99999"
    got = refused(user, "MODEL_ID=abc99999", f"BASE_URL={base}")
    assert "was not found with this key (there is no model abc99999)" in got


def test_an_unreachable_host_is_said(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert f"{address}/v1/models cannot be reached" in refused(user, f"BASE_URL={address}")


def test_a_missing_key_is_said(user: User) -> None:
    command = "BASETEN_API_KEY= make smoke MODEL_ID=abc"
    done = user.run("sh", "-c", command)
    assert done.returncode != 0
    assert "BASETEN_API_KEY is not set" in done.stderr
