"""The lines of docs/operations.md for Baseten's API, as printed there, run on the fake."""

import re

from deploy.paths import ROOT
from tests.support.baseten import Deployment
from tests.support.user import User

PAGE = (ROOT / "docs" / "operations.md").read_text()
FUNCTION, *LINES = re.findall(r"<!-- run -->\n```sh\n(.*?)```", PAGE, re.DOTALL)


def line_with(word: str) -> str:
    """The one line that contains this word."""
    (line,) = (line for line in LINES if word in line)
    return str(line)


def run(user: User, deployment: Deployment, line: str) -> str:
    """The output of the line, for this deployment and its model."""
    service = user.baseten.url
    here = line.replace("https://api.baseten.co", service)
    here = here.replace("https://model-$MODEL_ID.api.baseten.co", f"{service}/model-$MODEL_ID")
    setting = f"MODEL_ID={deployment.model.id}\nDEPLOYMENT_ID={deployment.id}\n"
    done = user.run("sh", "-c", f"{setting}{FUNCTION}{here}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
