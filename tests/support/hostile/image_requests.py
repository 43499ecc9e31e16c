"""Requests with images, and the 400 that they receive."""

import json
from pathlib import Path
from typing import Any

from local.processes import vllm_processes
from tests.support.container import Running
from tests.support.hostile.bodies import in_pieces


def body(*urls: Any, **more: Any) -> dict[str, Any]:
    content: list[Any] = [{"type": "text", "text": "What is this?"}]
    content += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    length = {} if "max_length" in more or "max_new_tokens" in more else {"max_tokens": 32}
    return {"messages": [{"role": "user", "content": content}], **length, **more}


def refused(container: Running, *urls: Any, route: str = "/predict", **more: Any) -> str:
    """The message of the 400 for a request with these images."""
    content = json.dumps(body(*urls, **more)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    response = container.http.post(route, content=in_pieces(content), headers=headers)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert len(response.content) < 1000
    return str(error["message"])


def resident() -> int:
    """Resident memory of the API server, in bytes."""
    (vllm,) = vllm_processes()
    status = Path(f"/proc/{vllm}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024
