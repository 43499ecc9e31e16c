import asyncio
from typing import Any

import pytest
from predict.middleware import Predict


def seen_by_vllm(scope: dict[str, Any]) -> Any:
    """The scope that reaches the application behind the class."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    receive, send = object(), object()
    asyncio.run(Predict(app)(scope, receive, send))  # type: ignore[arg-type]
    ((got, got_receive, got_send),) = seen
    assert (got_receive, got_send) == (receive, send)
    return got


def test_predict_becomes_chat_completions() -> None:
    scope = {"type": "http", "path": "/predict", "raw_path": b"/predict", "method": "POST"}
    got = seen_by_vllm(scope)
    assert got["path"] == "/v1/chat/completions"
    assert got["raw_path"] == b"/v1/chat/completions"
    assert got["method"] == "POST"
    assert scope["path"] == "/predict"


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "path": "/v1/chat/completions"},
        {"type": "http", "path": "/predict/"},
        {"type": "http", "path": "/v1/predict"},
        {"type": "lifespan"},
        {"type": "websocket", "path": "/predict"},
    ],
)
def test_everything_else_is_handed_on_as_it_is(scope: dict[str, Any]) -> None:
    assert seen_by_vllm(scope) is scope
