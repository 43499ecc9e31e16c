"""docs/operations.md: its lines work, and the commands and options it names are there."""

import json
import re
from collections.abc import Callable

import pytest

from tests.support.baseten import Deployment
from tests.support.operations import PAGE, line_with, run
from tests.support.user import User


@pytest.fixture
def two(user: User, pushed: Callable[[str], Deployment]) -> tuple[Deployment, Deployment]:
    """A model's first deployment, and another that has taken its place in production."""
    first = pushed("mixtral-8x7b")
    second = user.push("MODEL=mixtral-8x7b", "ENVIRONMENT=production")
    assert first.model.environments["production"].deployment is second
    return first, second


def test_an_environment_is_made(user: User, two: tuple[Deployment, Deployment]) -> None:
    first, _ = two
    run(user, first, line_with('"staging"'))
    assert "staging" in first.model.environments


def test_a_deployment_is_found_and_rolled_back_to(
    user: User, two: tuple[Deployment, Deployment]
) -> None:
    first, second = two
    listed = json.loads(run(user, first, line_with('/deployments"')))["deployments"]
    assert {first.id, second.id} <= {deployment["id"] for deployment in listed}
    run(user, first, line_with("/promote"))
    assert first.model.environments["production"].deployment is first


def test_the_key_is_on_no_command_line_of_the_page() -> None:
    """printf is the shell's own, so what it is given is on no process's command line."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    uses = [line.strip() for line in blocks.splitlines() if "$BASETEN_API_KEY" in line]
    assert uses == ["""printf 'Authorization: Api-Key %s\\n' "$BASETEN_API_KEY" |"""]


def test_the_commands_of_the_page_are_there(user: User) -> None:
    """make knows each target, and truss each option, that the page names."""
    for target in set(re.findall(r"(?:^|`|&& )make (\w+)", PAGE, re.MULTILINE)):
        done = user.run("make", "--dry-run", target, "MODEL_ID=abc")
        assert done.returncode == 0, done.stderr
    for command, options in re.findall(r"truss (push|model-logs) (--.*)", PAGE):
        shown = user.truss(command, "--help").stdout
        for option in re.findall(r"--[a-z-]+", options):
            assert option in shown
