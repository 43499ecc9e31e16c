"""What holds for all tests: hypothesis on shared machines, where no draw has a time limit; one
stand-in for Baseten, one user of it, and each model pushed once at most."""

import functools
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from local.truss import URL
from tests.support import baseten as platform
from tests.support import user as users
from tests.support.baseten import Baseten, Deployment
from tests.support.user import User

hypothesis.settings.register_profile(
    "shared",
    deadline=None,
    database=None,
    derandomize=True,  # a check of a change is to fail for the change
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=300,
)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def baseten() -> Iterator[Baseten]:
    """A stand-in for Baseten whose deployments all run in the container of this machine."""
    with platform.running(upstream=URL) as service:
        yield service


@pytest.fixture(scope="session")
def user(baseten: Baseten, tmp_path_factory: pytest.TempPathFactory) -> User:
    return users.move_in(baseten, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="session")
def pushed(user: User) -> Callable[[str], Deployment]:
    """Model's name → what `make push MODEL=name` uploaded; pushed when first asked for."""
    return functools.cache(lambda model: user.push(f"MODEL={model}"))
