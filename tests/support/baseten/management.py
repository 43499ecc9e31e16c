"""api.baseten.co: the management API.

Promises: autoscaling settings are stored, and take effect a moment after they were accepted, as on
the real service. Rejects a setting that is unknown or out of its documented range.
"""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.baseten.state import (
    SETTINGS,
    Baseten,
    Environment,
    Model,
    RejectedError,
    find_environment,
)

MODEL = "/v1/models/{model}"
ENVIRONMENT = MODEL + "/environments/{environment}"


class Management:
    def __init__(self, baseten: Baseten) -> None:
        self.baseten = baseten
        self.routes = [
            Route(MODEL, self.show_model),
            Route(f"{MODEL}/deployments", self.show_deployments),
            Route(f"{MODEL}/deployments/{{deployment}}", self.show_deployment),
            Route(f"{MODEL}/environments", self.add_environment, methods=["POST"]),
            Route(f"{ENVIRONMENT}/promote", self.promote, methods=["POST"]),
            Route(ENVIRONMENT, self.show_settings),
            Route(ENVIRONMENT, self.change_settings, methods=["PATCH"]),
        ]

    async def show_model(self, request: Request) -> Response:
        model = self._managed(request)
        return JSONResponse({"id": model.id, "name": model.name})

    async def add_environment(self, request: Request) -> Response:
        model = self._managed(request)
        name = (await request.json())["name"]
        model.environments[name] = Environment(name)
        return JSONResponse(_environment(model, model.environments[name]))

    async def show_deployments(self, request: Request) -> Response:
        model = self._managed(request)
        shown = [{"id": deployment.id, "model_id": model.id} for deployment in model.deployments]
        return JSONResponse({"deployments": shown})

    async def show_deployment(self, request: Request) -> Response:
        self._managed(request)
        deployment = self.baseten.find_deployment(request.path_params["deployment"])
        status = self.baseten.statuses.popleft() if self.baseten.statuses else "ACTIVE"
        return JSONResponse({"id": deployment.id, "status": status})

    async def promote(self, request: Request) -> Response:
        model = self._managed(request)
        environment = find_environment(model, request.path_params["environment"])
        deployment = self.baseten.find_deployment((await request.json())["deployment_id"])
        environment.deployment = deployment
        return JSONResponse({"id": deployment.id, "environment": environment.name})

    async def show_settings(self, request: Request) -> Response:
        model = self._managed(request)
        environment = find_environment(model, request.path_params["environment"])
        answer = JSONResponse(_environment(model, environment))
        environment.settings.update(environment.accepted)  # visible from the next request on
        environment.accepted = {}
        return answer

    async def change_settings(self, request: Request) -> Response:
        environment = find_environment(self._managed(request), request.path_params["environment"])
        asked_for = (await request.json()).get("autoscaling_settings") or {}
        wanted = {name: value for name, value in asked_for.items() if value is not None}
        check_settings({**environment.settings, **wanted})
        changed = wanted.items() - environment.settings.items()
        environment.accepted = wanted
        return JSONResponse({"status": "ACCEPTED" if changed else "UNCHANGED", "message": ""})

    def _managed(self, request: Request) -> Model:
        """The model that a management request concerns, unless an error is pending."""
        if self.baseten.trouble:
            raise RejectedError(self.baseten.trouble.popleft(), "Please try again later.")
        self.baseten.check_key(request)
        return self.baseten.find(request.path_params["model"])


def check_settings(settings: Mapping[str, Any]) -> None:
    """`RejectedError` unless each setting is known, an integer and in its range."""
    for name, value in settings.items():
        if name not in SETTINGS:
            raise RejectedError(400, f"{name}: unknown setting")
        _, least, most = SETTINGS[name]
        if type(value) is not int or value < least or (most is not None and value > most):
            upper = f" and at most {most}" if most is not None else ""
            raise RejectedError(400, f"{name} must be at least {least}{upper}, got {value!r}")
    if settings["min_replica"] > settings["max_replica"]:
        raise RejectedError(400, "min_replica must not be above max_replica")


def _environment(model: Model, environment: Environment) -> dict[str, Any]:
    current = environment.deployment
    return {
        "name": environment.name,
        "model_id": model.id,
        "current_deployment": {"id": current.id} if current else None,
        "autoscaling_settings": environment.settings,
    }
