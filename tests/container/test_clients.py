"""Five real clients against the container; `make clients` runs all of them."""

from pathlib import Path

import pytest

from local import clients
from local.truss import URL
from tests.support.container import Running

FIVE = [name for name in clients.TESTED if name != "langchain"]  # langchain-openai's agents
mistral = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
pixtral = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)


@pytest.fixture(scope="session")
def interpreter() -> Path:
    return clients.python(clients.TESTED)


def steps(container: Running, interpreter: Path, name: str, image: str = "") -> list[str]:
    """The steps of a client that gave the right result; fails if any did not."""
    (client,) = [one for one in clients.clients() if (one.language, one.name) == ("python", name)]
    came = clients.run(client, interpreter, URL, container.card.name, image)
    assert [step for step in came if not step.right] == []
    return [step.name for step in came]


@mistral
@pytest.mark.parametrize("name", FIVE)
def test_a_client_works_with_the_history_it_has(
    container: Running, interpreter: Path, name: str
) -> None:
    assert {"plain", "stream", "tool", "tool_stream", "history"} <= set(
        steps(container, interpreter, name)
    )


@pixtral
@pytest.mark.parametrize("name", ["openai", "anthropic", "mistralai"])
def test_a_client_s_image_is_seen(container: Running, interpreter: Path, name: str) -> None:
    assert "image" in steps(container, interpreter, name, clients.red())
