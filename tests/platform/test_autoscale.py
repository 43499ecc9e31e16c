"""`make autoscale` against the management API."""

import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from deploy import cards, fit
from deploy.baseten import BasetenError, Management
from tests.support import baseten as platform
from tests.support.baseten import Baseten, Deployment, Model
from tests.support.user import User


@pytest.fixture
def model(pushed: Callable[[str], Deployment]) -> Model:
    """Pixtral, deployed, with the settings Baseten gives every model."""
    model = pushed("pixtral-12b").model
    fresh = type(model.environments["production"])("production")
    model.environments["production"].settings = fresh.settings
    return model


@pytest.fixture
def management(baseten: Baseten) -> Iterator[Management]:
    """The client of the command, with its waits written down instead of waited for."""
    headers = {"Authorization": f"Api-Key {baseten.key}"}
    waits: list[float] = []
    with httpx.Client(base_url=baseten.url, headers=headers, trust_env=False) as client:
        management = Management(client, waits.append, lambda text: None)
        yield management
    baseten.trouble.clear()


def waited(management: Management) -> list[float]:
    waits: list[float] = management.wait.__self__  # type: ignore[attr-defined]
    return waits


def autoscale(user: User, model: Model, *choices: str) -> str:
    """What `make autoscale` prints."""
    done = user.make("autoscale", f"MODEL_ID={model.id}", f"BASE_URL={user.baseten.url}", *choices)
    assert done.returncode == 0, done.stderr
    assert user.baseten.key not in done.stdout + done.stderr
    return done.stdout


def rows(printed: str) -> dict[str, tuple[str, str]]:
    """Setting → before and after, from the printed table."""
    cells = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines()]
    return {row[1]: (row[2], row[3]) for row in cells if len(row) == 5}


def test_the_card_s_figures_are_set_and_shown(user: User, model: Model) -> None:
    target = fit.choose(cards.load("pixtral-12b")).concurrency_target
    printed = autoscale(user, model)
    assert "Pixtral 12B 2409, production" in printed
    assert rows(printed)["concurrency_target"] == ("1", str(target))
    settings = model.environments["production"].settings
    assert settings["concurrency_target"] == target
    assert settings["target_utilization_percentage"] == 50
    assert settings["scale_down_delay"] == 900  # not in the card, so left as it was


def test_a_dry_run_changes_nothing(user: User, model: Model) -> None:
    printed = autoscale(user, model, "DRY_RUN=1")
    assert rows(printed)["concurrency_target"][0] == "1"
    assert "nothing was changed" in printed
    environment = model.environments["production"]
    assert (environment.settings["concurrency_target"], environment.accepted) == (1, {})


def test_another_environment_and_other_figures_may_be_chosen(user: User, model: Model) -> None:
    environment = type(model.environments["production"])("canary")
    model.environments["canary"] = environment
    autoscale(user, model, "ENVIRONMENT=canary", "MIN=1", "MAX=4", "CONCURRENCY=16")
    got = environment.settings
    assert (got["min_replica"], got["max_replica"], got["concurrency_target"]) == (1, 4, 16)
    assert model.environments["production"].settings["max_replica"] == 1


def test_the_target_follows_the_hardware(user: User, model: Model) -> None:
    printed = autoscale(user, model, "GPU=H200", "PRECISION=fp8", "CONTEXT=32768")
    target = fit.choose(cards.load("pixtral-12b"), "H200", "fp8", 32768).concurrency_target
    assert f"concurrency_target {target} is from the plan for H200:1, fp8" in printed
    assert model.environments["production"].settings["concurrency_target"] == target


def test_what_is_so_already_is_not_sent(user: User, model: Model) -> None:
    autoscale(user, model)
    assert "it was so already" in autoscale(user, model)


# --- a busy service ---


def test_a_busy_service_is_asked_again(
    baseten: Baseten, model: Model, management: Management
) -> None:
    baseten.trouble.extend([429, 503, 502])
    assert management.model_name(model.id) == model.name
    assert waited(management) == [7.0, 2.0, 4.0]


def test_a_change_is_asked_again_too_and_awaited(
    baseten: Baseten, model: Model, management: Management
) -> None:
    baseten.trouble.extend([500])
    after = management.change(model.id, "production", {"concurrency_target": 9})
    assert after["concurrency_target"] == 9
    assert waited(management) == [1.0, 2.0]  # the 500, then until it was applied


def test_a_service_that_stays_busy_is_given_up(
    baseten: Baseten, model: Model, management: Management
) -> None:
    baseten.trouble.extend([503] * 20)
    with pytest.raises(BasetenError, match="Baseten answered 503: Please try again later"):
        management.model_name(model.id)
    assert waited(management) == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"concurrency_target": 0}, "concurrency_target must be at least 1, got 0"),
        ({"min_replica": 2}, "min_replica must not be above max_replica"),
        ({"scale_down_delay": 9999}, "at least 0 and at most 3600, got 9999"),
        ({"replicas": 1}, "replicas: unknown setting"),
    ],
)
def test_what_baseten_refuses_is_said(
    model: Model, management: Management, settings: dict[str, int | None], said: str
) -> None:
    with pytest.raises(BasetenError, match=f"answered 400: .*{said}"):
        management.change(model.id, "production", settings)
    assert waited(management) == []


# --- what is wrong is said in one line ---


def refused(user: User, *choices: str) -> str:
    done = user.make("autoscale", *choices)
    assert done.returncode != 0
    assert user.baseten.key not in done.stdout + done.stderr
    line, *of_make = done.stderr.splitlines()
    assert all(said.startswith("make: ***") for said in of_make)
    return line


def test_a_wrong_id_is_said(user: User) -> None:
    got = refused(user, "MODEL_ID=abc99999", f"BASE_URL={user.baseten.url}")
    assert "the model abc99999 was not found with this key" in got


def test_a_missing_id_is_said(user: User) -> None:
    assert "MODEL_ID= is missing" in refused(user)


def test_a_wrong_environment_is_said(user: User, model: Model) -> None:
    got = refused(
        user, f"MODEL_ID={model.id}", f"BASE_URL={user.baseten.url}", "ENVIRONMENT=nowhere"
    )
    assert f"the environment nowhere of the model {model.id} was not found" in got


def test_an_unknown_card_is_said(user: User, model: Model) -> None:
    got = refused(user, f"MODEL_ID={model.id}", f"BASE_URL={user.baseten.url}", "MODEL=llama")
    assert "no model 'llama'" in got


def test_an_unreachable_service_is_said(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert f"{address} cannot be reached" in refused(user, "MODEL_ID=abc", f"BASE_URL={address}")


def test_another_service_is_noticed(user: User) -> None:
    page = Starlette(routes=[Route("/{path:path}", lambda request: HTMLResponse("<h1>Hello"))])
    with platform.serving(page) as address:
        got = refused(user, "MODEL_ID=abc", f"BASE_URL={address}")
    assert f"{address} answers, but not as Baseten's API does" in got


@pytest.mark.parametrize(
    ("key", "said"),
    [("", "BASETEN_API_KEY is not set"), ("wrong", "the key was refused")],
)
def test_a_missing_or_wrong_key_is_said(user: User, model: Model, key: str, said: str) -> None:
    command = f"BASETEN_API_KEY={key} make autoscale MODEL_ID={model.id}"
    done = user.run("sh", "-c", f"{command} BASE_URL={user.baseten.url}")
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[0]
