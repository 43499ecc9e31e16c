"""For all tests: distribution over processes, hypothesis without time limits, one fake of Baseten,
one user of it, each model pushed at most once, and the rows of docs/resilience.md."""

import atexit
import functools
import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from deploy import cards, fit
from local.truss import URL
from tests.support import baseten as platform
from tests.support import turns
from tests.support import user as users
from tests.support.baseten import Baseten, Deployment
from tests.support.resilience import Report
from tests.support.timing import TimingPlugin
from tests.support.user import User

hypothesis.settings.register_profile(
    "shared",
    deadline=None,
    database=None,
    derandomize=True,  # a check of a change should fail only through that change
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=50,
)
hypothesis.settings.load_profile("shared")


REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--resilience", type=Path, metavar="FILE", help="write what the tests of resilience saw"
    )
    parser.addoption("--model", help="only the container tests of this model")
    parser.addoption(
        "--timings", type=Path, metavar="FILE", help="add this run's times to a file; show none"
    )
    parser.addoption(
        "--containers", type=int, metavar="N", help="only N of the processes start containers"
    )
    parser.addoption("--soak", type=int, default=120, metavar="SECONDS", help="of test_soak.py")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report()
    config.pluginmanager.register(config.stash[REPORT])
    config.pluginmanager.register(TimingPlugin(config.getoption("--timings")))
    if hasattr(config, "workerinput"):  # a worker: its remains must not count as another's
        os.environ["TMPDIR"] = f"{config.getoption('basetemp')}-tmp"
        os.mkdir(os.environ["TMPDIR"])
        tempfile.tempdir = None
        if config.getoption("loadgroup", False):  # each worker has a container
            config.pluginmanager.register(turns.arrange(Path(config.getoption("basetemp")).parent))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("loadgroup", False):  # several workers
        from tests.support import sharing  # imports pytest-xdist, which unit tests do without

        sharing.arrange(items, Path(config.getoption("basetemp")))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Freezes imported modules, so that no garbage collection scans them: during the import of vLLM
    and torch that takes a fifth of the time, and afterwards half a second for each of some hundred
    collections that tests request."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.unfreeze)  # nanobind reports what is left at exit as leaks


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadgroup":
        return None
    from tests.support import sharing

    return sharing.GroupScheduling(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    to = session.config.getoption("--resilience")
    if to and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        session.config.stash[REPORT].write(to)


@pytest.fixture(scope="session")
def resilience(request: pytest.FixtureRequest) -> Report:
    """Where resilience tests record what they did and what they saw."""
    return request.config.stash[REPORT]


@pytest.fixture(scope="session")
def baseten() -> Iterator[Baseten]:
    """A fake of Baseten whose deployments all run in this machine's container."""
    with platform.running(upstream=URL) as service:
        yield service


@pytest.fixture(scope="session")
def user(baseten: Baseten, tmp_path_factory: pytest.TempPathFactory) -> User:
    return users.move_in(baseten, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="session")
def pushed(user: User) -> Callable[[str], Deployment]:
    """Model's name → what `make push MODEL=name` uploaded; pushed on first use. A model with more
    GPUs than a small machine has cores, one for each worker, goes to two large ones."""

    def push(model: str) -> Deployment:
        many = fit.choose(cards.load(model)).count > 2
        return user.push(f"MODEL={model}", *(["GPU=B300:2", "PRECISION=bf16"] if many else []))

    return functools.cache(push)
