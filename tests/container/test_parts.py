"""Message parts that vLLM reads as one thing and its tokenizer as another: the tokenizer would
fetch or open what they name."""

import base64
from typing import Any

import pytest

from tests.support.container import Running
from tests.support.image_host import ImageHost, picture

pytestmark = pytest.mark.parametrize("container", ["mistral-7b", "pixtral-12b"], indirect=True)

IMAGE = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
READ_BY_VLLM: list[dict[str, Any]] = [
    {"image_url": IMAGE},
    {"text": "Hello"},
    {"tool_reference": {"name": "a"}, "name": "a"},
]


@pytest.mark.parametrize("route", ["/predict", "/tokenize"])
@pytest.mark.parametrize("uuid", [{}, {"uuid": "1"}], ids=["plain", "uuid"])
@pytest.mark.parametrize("kind", ["image", "audio", "image_url", "audio_url", None])
@pytest.mark.parametrize("named", ["url", "path"])
@pytest.mark.parametrize("read", READ_BY_VLLM, ids=lambda read: min(read))
def test_nothing_is_fetched_but_by_the_connector(
    container: Running,
    image_host: ImageHost,
    read: dict[str, Any],
    named: str,
    kind: str | None,
    uuid: dict[str, str],
    route: str,
) -> None:
    what = image_host.url("/smuggled.png") if named == "url" else "/etc/hostname"
    part = {**({"type": kind} if kind else {}), **uuid, **read, named: what}
    asked = len(image_host.asked)
    content = [{"type": "text", "text": "What is this?"}, part]
    request: dict[str, Any] = {"messages": [{"role": "user", "content": content}]}
    if route == "/predict":
        request["max_tokens"] = 8
    response = container.http.post(route, json=request)
    assert response.status_code in (200, 400), response.text
    assert len(image_host.asked) == asked
