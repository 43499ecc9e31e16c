"""The state of the fake Baseten: models, their deployments and environments, uploads, the one key.

Promises: an upload is stored unchanged. Rejects, with the real service's status: a missing or wrong
key, an unknown model, deployment or environment.
"""

import io
import itertools
import secrets
import tarfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

# https://docs.baseten.co/deployment/autoscaling/overview: setting → default, minimum, maximum
SETTINGS: dict[str, tuple[int, int, int | None]] = {
    "min_replica": (0, 0, None),
    "max_replica": (1, 1, None),
    "autoscaling_window": (60, 10, 3600),
    "scale_down_delay": (900, 0, 3600),
    "concurrency_target": (1, 1, None),
    "target_utilization_percentage": (70, 1, 100),
}


@dataclass
class Environment:
    name: str
    deployment: "Deployment | None" = None
    settings: dict[str, int] = field(
        default_factory=lambda: {name: row[0] for name, row in SETTINGS.items()}
    )
    accepted: dict[str, int] = field(default_factory=dict)  # settings not applied yet


@dataclass
class Model:
    id: str
    name: str
    team: str
    deployments: list["Deployment"] = field(default_factory=list)
    environments: dict[str, Environment] = field(default_factory=dict)


@dataclass
class Deployment:
    id: str
    model: Model
    s3_key: str
    archive: bytes
    config: dict[str, Any]  # as `truss push` sent it with the archive
    draft: bool

    def unpack(self, folder: Path) -> Path:
        """Writes the uploaded files into `folder`."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            archive.extractall(folder, filter="data")
        return folder

    def files(self) -> dict[str, bytes]:
        """Path → content of the uploaded files."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            read = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            return {name: file.read() for name, file in read.items() if file}


class RejectedError(Exception):
    """The platform's error response to a request."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Baseten:
    """The state of the service. `upstream` is the address of the container that every deployment
    runs in."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""  # set once it runs
        self.key = secrets.token_hex(16)
        self.models: dict[str, Model] = {}
        self.uploads: dict[str, bytes] = {}
        self._ids = (f"abc{number:05}" for number in itertools.count(1))
        self.statuses: deque[str] = deque()  # of a deployment, before it is ACTIVE
        # Error statuses that the management API returns next, before it works again
        self.trouble: deque[int] = deque()

    @property
    def newest(self) -> Deployment:
        """The deployment of the last push."""
        return max(
            (deployment for model in self.models.values() for deployment in model.deployments),
            key=lambda deployment: deployment.id,
        )

    def host(self, model: Model) -> str:
        return f"{self.url}/model-{model.id}"

    def new_id(self) -> str:
        return next(self._ids)

    def check_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme not in ("Api-Key", "Bearer") or not secrets.compare_digest(key, self.key):
            raise RejectedError(401, "the API key is missing or wrong")

    def find(self, model: str) -> Model:
        if model not in self.models:
            raise RejectedError(404, f"there is no model {model}")
        return self.models[model]

    def find_deployment(self, identifier: str) -> Deployment:
        for model in self.models.values():
            for deployment in model.deployments:
                if deployment.id == identifier:
                    return deployment
        raise RejectedError(404, f"there is no deployment {identifier}")


def find_environment(model: Model, name: str) -> Environment:
    if name not in model.environments:
        raise RejectedError(404, f"the model has no environment {name}")
    return model.environments[name]
