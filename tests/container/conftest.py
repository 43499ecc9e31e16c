"""One container per model, made from what was pushed, shared by every test that names the model."""

from collections.abc import Callable, Iterator

import pytest

from deploy import cards
from local.standins.corpus import chat, dialogues
from tests.support import asked, turns
from tests.support.baseten import Deployment
from tests.support.container import MOST_TESTED, SPAWN, SPAWNED, Running, run_container
from tests.support.faults import STALL_SECONDS
from tests.support.image_host import ImageHost, serving

SOON_STALLED = ("mixtral-8x22b",)  # their engines get less time to show progress (test_faults.py)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ends_container: runs after all others of its container")
    config.addinivalue_line("markers", f"{turns.MARK}: runs while no other process has a test")
    config.addinivalue_line("markers", f"{turns.BUSY}: takes all cores for minutes")
    config.addinivalue_line("markers", f"{turns.PATIENT}: may run beside a {turns.BUSY} one")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts tests that end a shared container last; pytest then sorts by container, stably."""
    items.sort(key=lambda item: item.get_closest_marker("ends_container") is not None)
    chosen, quiet = config.getoption("--model"), config.getoption("--resilience")
    others = [
        item
        for item in items
        if (chosen and chosen not in asked.models_of(item))
        or (not quiet and item.get_closest_marker("only_resilience"))
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


pytest_runtest_makereport = asked.pytest_runtest_makereport  # pytest looks for it here


@pytest.fixture(scope="session")
def image_host() -> Iterator[ImageHost]:
    """The one host that containers may fetch from besides public addresses: a 127.0.0.1 port."""
    with serving() as host:
        yield host


@pytest.fixture(scope="session", params=[card.name for card in MOST_TESTED])
def container(
    request: pytest.FixtureRequest,
    pushed: Callable[[str], Deployment],
    image_host: ImageHost,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running | None]:
    """The container of each model that runs all tests, in turn; `every_card` and `with_tools` add
    other models. pytest runs all tests of one container before it starts the next.

    It is made only from the upload, so every request here, at its own port or through the platform,
    tests what a push would deploy.

    A test that starts its own container requests `None`: no other container then has the ports. A
    test that ends the shared one is marked with `ends_container`.
    """
    if request.param is None:
        yield None
        return
    card = cards.load(request.param)
    variables = {"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{image_host.port}"}
    if card.name in SOON_STALLED:
        variables["PREDICT_STALL_SECONDS"] = str(STALL_SECONDS)
    if card.name == SPAWNED:
        variables |= SPAWN
    with run_container(
        card, pushed(card.name), tmp_path_factory.mktemp("container"), variables
    ) as started:
        yield started


@pytest.fixture
def chats(container: Running) -> dict[str, tuple[list[dict[str, str]], str]]:
    """Name → messages and the exact answer, for the dialogues this model knows."""
    known = dialogues(images=container.card.features.images > 0)
    return {name: chat(turns) for name, turns in known.items()}
