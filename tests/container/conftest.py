"""One container a model, made from what was pushed, shared by every test that names it."""

from collections.abc import Callable, Iterator

import pytest

from deploy import cards
from local.standins.corpus import chat, dialogues
from tests.support.baseten import Deployment
from tests.support.container import MOST_TESTED, Running, run_container
from tests.support.image_host import ImageHost, serving


@pytest.fixture(scope="session")
def image_host() -> Iterator[ImageHost]:
    """What the containers may fetch from, beside public addresses: one port of 127.0.0.1."""
    with serving() as host:
        yield host


@pytest.fixture(scope="session", params=[card.name for card in MOST_TESTED])
def container(
    request: pytest.FixtureRequest,
    pushed: Callable[[str], Deployment],
    image_host: ImageHost,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running | None]:
    """The container of each model that all tests run on, in turn; `every_card` and `with_tools`
    name others too. pytest runs all tests of one before it starts the next.

    It is made from the upload, and from nothing else of this repository, so that whatever is asked
    of it here, at its own port or through the platform, is asked of what a push would deploy.

    A test that starts one of its own asks for `None`: no other then has the ports.
    """
    if request.param is None:
        yield None
        return
    card = cards.load(request.param)
    variables = {"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{image_host.port}"}
    with run_container(
        card, pushed(card.name), tmp_path_factory.mktemp("container"), variables
    ) as started:
        yield started


@pytest.fixture
def chats(container: Running) -> dict[str, tuple[list[dict[str, str]], str]]:
    """Name → messages and the answer to the letter, for the dialogues this model knows."""
    known = dialogues(images=container.card.features.images > 0)
    return {name: chat(turns) for name, turns in known.items()}
