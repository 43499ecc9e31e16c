"""The clients of `make clients`: each has a program, pins, and lines that point it here."""

import json
import re

import pytest

from local import clients
from local.clients import Client, Step
from scripts.clients import PAGE, page

PINS = (clients.PROGRAMS / "requirements.txt").read_text().lower()


@pytest.mark.parametrize("client", clients.clients(), ids=lambda one: f"{one.language}-{one.name}")
def test_a_client_has_a_program_and_a_pin(client: Client) -> None:
    assert client.program.exists()
    assert "127.0.0.1:8080" in client.use or "logs path" in client.use
    if client.language == "python":
        assert re.search(rf"^{re.escape(client.package)}==\d", PINS, re.MULTILINE)
    else:
        package = json.loads((clients.PROGRAMS / "node" / "package.json").read_text())
        assert package["dependencies"][client.package][0].isdigit()


def test_every_program_is_a_client_s() -> None:
    programs = {
        path for kind in ("python", "node") for path in (clients.PROGRAMS / kind).glob("use_*")
    }
    assert programs == {client.program for client in clients.clients()}


def test_the_page_has_each_client_s_lines_as_make_clients_writes_them() -> None:
    """ruff formats the page's: lines that it would change make `make check` fail after a run."""
    written = PAGE.read_text()
    assert [client.name for client in clients.clients() if client.use not in written] == []


def test_the_page_tells_what_came_from_what_failed() -> None:
    client = Client("python", "openai", "openai", "use")
    right, other = Step("plain", "a strong, cold wind", None), Step("agent", "Sorry", None)
    wrong, failed = Step("tool", "Sorry", None), Step("stream", None, "Error: a | b")
    text = page({client: [right, other, wrong, failed]}, {"python": {"openai": "1"}, "node": {}})
    came = "as trained: plain; answered: agent; **tool failed**: the answer was Sorry"
    came += "; **stream failed**: Error: a \\| b"
    rest = "tool_stream, structured, history, image"
    assert f"| openai | 1 | 4 | {came} | {rest} |" in text
    assert "```python\nuse\n```" in text


def test_a_wrong_answer_is_a_failure_where_the_right_one_is_known() -> None:
    assert not Step("tool", "Sorry", None).right
    assert not Step("agent", None, "Error").right
    assert Step("agent", "Sorry", None).right
    assert Step("forced", "[get_weather]", None).right


def test_what_a_client_was_not_asked_is_told() -> None:
    steps = [Step(name, "a", None) for name in ("plain", "responses_structured", "image")]
    assert clients.not_run(steps) == ["stream", "tool", "tool_stream", "history"]
    assert clients.not_run([Step("headless", "a", None)]) == []
