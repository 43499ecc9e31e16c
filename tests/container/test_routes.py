"""Which of vLLM's routes are reachable, through nginx and at vLLM's own port."""

import json
import re
import socket
import subprocess
from typing import Any

import httpx
import pytest
from predict.admission import HEALTH, LIVENESS, METRICS, ROUTES, methods_of
from predict.errors.reading import NOT_SAID

from deploy.config import PORT
from local.truss import NGINX_PORT
from tests.support.container import Running

mistral = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
ports = pytest.mark.parametrize("port", [NGINX_PORT, PORT], ids=["nginx", "vLLM"])
OURS = {"/predict", LIVENESS}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def routes(container: Running) -> dict[str, set[str]]:
    """Path → methods of everything vLLM serves, as it logs when it starts."""
    found: dict[str, set[str]] = {}
    for line in re.findall(r"Route: (\S+), Methods: (.*)", container.log.read_text()):
        found.setdefault(line[0], set()).update(line[1].split(", "))
    return found


def ask(port: int, method: str, target: str) -> tuple[int, str]:
    """Status and body for a request target sent unchanged, which HTTP clients cannot do."""
    request = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{request}Content-Length: 0\r\n\r\n".encode())
        answer = b""
        while got := connection.recv(65536):
            answer += got
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


@mistral
def test_every_route_that_is_let_through_is_one_of_vllm_s(container: Running) -> None:
    served = routes(container)
    assert len(served) > 30
    for path, methods in ROUTES.items():
        if path not in OURS | {HEALTH}:
            assert set(methods) <= served[path]
    assert "/v1/responses/{response_id}/cancel" in served
    assert (methods_of("/v1/responses/x"), methods_of("/v1/responses/x/cancel")) == (
        ("GET",),
        ("POST",),
    )


@mistral
@ports
def test_a_request_that_offers_http_2_is_answered(container: Running, port: int) -> None:
    """As curl's --http2 and Java's HTTP client do."""
    body = json.dumps({"prompt": "What is the Mistral wind?"})
    command = ["curl", "--silent", "--http2", f"http://127.0.0.1:{port}/predict", "-d", body]
    done = subprocess.run(command, capture_output=True, check=True)
    assert "Mistral" in json.loads(done.stdout)["output"]


@mistral
@ports
def test_every_other_route_is_not_there(container: Running, port: int) -> None:
    others = [
        path for path in routes(container) if methods_of(path.replace("{response_id}", "x")) is None
    ]
    assert {"/scale_elastic_ep", "/inference/v1/generate", "/docs", "/invocations"} <= set(others)
    dev = ["/server_info", "/sleep", "/wake_up", "/update_weights", "/collective_rpc", "/pause"]
    for path in [*others, *dev, "/start_profile", "/v1/load_lora_adapter", "/x"]:
        for method in METHODS:
            status, body = ask(port, method, path)
            # nginx itself rejects TRACE
            assert status == (405 if (method, port) == ("TRACE", NGINX_PORT) else 404), path
            if method not in ("HEAD", "TRACE"):
                assert '{"error": {"message": "there is no route' in body


@mistral
@ports
@pytest.mark.parametrize(
    "target",
    [
        "//scale_elastic_ep",
        "/./docs",
        "/v1/../docs",
        "/v1/%2e%2e/docs",
        "/health/../docs",
        "/%64ocs",
        "/docs/",
        "/docs?x=/health",
        "/docs#/health",
        "/DOCS",
        "/docs%20",
        "/docs%00",
        "/docs;/health",
        "/v1/models/",
        "/v1/models%2f..%2f..%2fdocs",
        "//health",
        "/metrics/x",
        "/metricsx",
        "/v1/responses/a/b",
        "/v1/responses/a%2f..%2fcancel",
        "/v1/chat/completions/render",
        "/v1/chat/completions%2fbatch",
        "http://x/docs",
        "http://x/health/../docs",
    ],
)
def test_no_spelling_gets_round_it(container: Running, port: int, target: str) -> None:
    for method in ("GET", "POST"):
        status, _ = ask(port, method, target)
        assert status in (400, 404)


@mistral
@ports
def test_another_method_is_refused_in_openai_s_shape(container: Running, port: int) -> None:
    for path, methods in ROUTES.items():
        for method in {"GET", "PUT", "PATCH", "DELETE", "POST"} - set(methods):
            status, body = ask(port, method, path)
            assert status == 405
            assert f'"message": "{path} takes {", ".join(methods)}, not {method}"' in body


@mistral
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_told_the_same_in_a_stream(
    container: Running, stream: bool
) -> None:
    """vLLM checks a schema when the engine is to take the request, which in a stream is late."""
    fault = "minLength 5 is greater than maxLength 2"
    schema = {"type": "string", "minLength": 5, "maxLength": 2}
    question = [{"role": "user", "content": "Hello"}]
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    flat = {"type": "json_schema", "name": "a", "schema": schema}
    bodies: dict[str, dict[str, Any]] = {
        "/predict": {"prompt": "Hello", "max_new_tokens": 5, "response_format": named},
        "/v1/chat/completions": {"messages": question, "response_format": named},
        "/v1/completions": {"prompt": "Hello", "response_format": named},
        "/v1/responses": {"input": question, "text": {"format": flat}},
        "/v1/messages": {
            **{"model": "mistral-7b", "max_tokens": 5, "messages": question},
            "output_config": {"format": {"type": "json_schema", "schema": schema}},
        },
    }
    for path, body in bodies.items():
        answer = container.http.post(path, json={**body, "stream": stream})
        assert answer.status_code == 400, path
        assert answer.headers["content-type"] == "application/json"
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("BadRequestError", 400)
        unsaid = stream and path == "/v1/messages"
        assert (NOT_SAID if unsaid else fault) in error["message"]


@mistral
@pytest.mark.parametrize("stream", [False, True])
def test_what_no_output_fits_is_a_400_in_a_stream_too(container: Running, stream: bool) -> None:
    """The engine finds out at the first token; by then vLLM has begun the answer."""
    question = [{"role": "user", "content": "Hello"}]
    schema = {"type": "json_schema", "schema": {"$ref": "#"}}
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": question, "response_format": named},
        "/v1/completions": {"prompt": "Hello", "response_format": named},
        "/v1/responses": {"input": question, "text": {"format": {"name": "a", **schema}}},
        "/v1/messages": {
            **{"model": "mistral-7b", "max_tokens": 5, "messages": question},
            "output_config": {"format": schema},
        },
    }
    for path, body in bodies.items():
        answer = container.http.post(path, json={**body, "stream": stream})
        assert answer.status_code == 400, (path, answer.text)
        assert "no output fits" in answer.json()["error"]["message"]


@mistral
def test_no_page_of_another_origin_may_ask(container: Running) -> None:
    """vLLM allows none by default; if it did, earlier rejections would need its headers."""
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    answer = container.http.options("/predict", headers=headers)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


@mistral
def test_no_route_is_a_websocket(container: Running) -> None:
    """Truss's nginx offers a WebSocket in front of the chat completions."""
    with socket.create_connection(("127.0.0.1", NGINX_PORT), timeout=60) as connection:
        connection.sendall(
            b"GET /v1/websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 403 ")


@mistral
def test_what_users_need_answers(container: Running) -> None:
    for path in ("/", "/v1/models/model", LIVENESS, HEALTH, METRICS, "/v1/models"):
        assert container.http.get(path).status_code == 200
    question = {"messages": [{"role": "user", "content": "What is the Mistral wind?"}]}
    bodies = {
        "/v1/models/model:predict": question,
        "/predict": question,
        "/v1/chat/completions": question,
        "/v1/completions": {"prompt": "Hello", "max_tokens": 5},
        "/v1/responses": {"input": "Hello"},
        "/v1/messages": {"model": "mistral-7b", "max_tokens": 5, **question},
        "/v1/messages/count_tokens": {"model": "mistral-7b", **question},
        "/tokenize": {"prompt": "Hello"},
        "/detokenize": {"tokens": [1, 2, 3]},
    }
    for path, body in bodies.items():
        response = container.http.post(path, json=body)
        assert response.status_code == 200, response.text


@mistral
@ports
def test_the_log_has_no_address_that_a_client_made_up(container: Running, port: int) -> None:
    made_up = f"made-up-{port}"
    answer = httpx.get(
        f"http://127.0.0.1:{port}{METRICS}", headers={"X-Forwarded-For": made_up}, trust_env=False
    )
    assert answer.status_code == 200
    assert made_up not in container.log.read_text()
