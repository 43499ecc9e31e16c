"""A stand-in for Baseten, as far as this project's users touch it: one server on loopback.

Promises: the unmodified `truss push` and `truss predict` work against it; what was uploaded is
kept as it came; a request reaches the container and its answer comes back piece by piece, nothing
held back; autoscaling settings are kept, and applied a moment after they were accepted, as the
real service does. Refuses, with the real one's status: a missing or wrong key, an unknown model,
deployment or environment, a setting out of its documented range.

The first part of a path stands for a host of the real one:

    /graphql/, /model_versions/{deployment}/…   app.baseten.co (the latter as the seeds print it)
    /uploads/…                                  the S3 bucket that pushes are put into
    /v1/models/…                                api.baseten.co, the management API
    /model-{model}/…                            model-{model}.api.baseten.co
    /{model}/v1/…                               bridge.baseten.co
"""

import asyncio
import base64
import io
import itertools
import json
import re
import secrets
import socket
import tarfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

# https://docs.baseten.co/deployment/autoscaling/overview: setting → default, least, most
SETTINGS: dict[str, tuple[int, int, int | None]] = {
    "min_replica": (0, 0, None),
    "max_replica": (1, 1, None),
    "autoscaling_window": (60, 10, 3600),
    "scale_down_delay": (900, 0, 3600),
    "concurrency_target": (1, 1, None),
    "target_utilization_percentage": (70, 1, 100),
}

# Headers that belong to one connection (RFC 9110, 7.6.1), and those that end at the platform
ITS_OWN = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
ITS_OWN |= {"authorization", "host"}

ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]


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
    config: dict[str, Any]  # as `truss push` sent it beside the archive
    draft: bool

    def unpack(self, folder: Path) -> Path:
        """Lays out in `folder` what was uploaded."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            archive.extractall(folder, filter="data")
        return folder

    def files(self) -> dict[str, bytes]:
        """Path → content of what was uploaded."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            read = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            return {name: file.read() for name, file in read.items() if file}


class RefusedError(Exception):
    """What the platform answers instead."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Baseten:
    """The service. `upstream` is the address of the container that every deployment runs in."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""  # known when it runs
        self.key = secrets.token_hex(16)
        self.models: dict[str, Model] = {}
        self.uploads: dict[str, bytes] = {}
        self._ids = (f"abc{number:05}" for number in itertools.count(1))
        # Statuses the management API answers with next, before it does as asked
        self.trouble: deque[int] = deque()
        places = ["production", "development", "environments/{environment}"]
        places += ["deployment/{deployment}"]
        self.app = Starlette(
            routes=[
                Route("/graphql/", self.graphql, methods=["POST"]),
                Route("/uploads/{bucket}/{key:path}", self.upload, methods=["PUT"]),
                Route("/v1/models/{model}", self.show_model),
                Route("/v1/models/{model}/deployments", self.show_deployments),
                Route("/v1/models/{model}/environments", self.add_environment, methods=["POST"]),
                Route(
                    "/v1/models/{model}/environments/{environment}/promote",
                    self.promote,
                    methods=["POST"],
                ),
                Route("/v1/models/{model}/environments/{environment}", self.show_settings),
                Route(
                    "/v1/models/{model}/environments/{environment}",
                    self.change_settings,
                    methods=["PATCH"],
                ),
                *(
                    Route(f"/model-{{model}}/{place}/predict", self.predict, methods=["POST"])
                    for place in places
                ),
                *(
                    Route(
                        f"/model-{{model}}/{place}/sync/{{path:path}}",
                        self.pass_on,
                        methods=ANY_METHOD,
                    )
                    for place in places
                ),
                Route("/model_versions/{deployment}/predict", self.predict, methods=["POST"]),
                Route("/{model}/v1/{path:path}", self.bridge, methods=ANY_METHOD),
            ],
            exception_handlers={RefusedError: _refused},  # type: ignore[dict-item]
            lifespan=self._client,
        )

    @property
    def newest(self) -> Deployment:
        """The deployment of the last push."""
        return max(
            (deployment for model in self.models.values() for deployment in model.deployments),
            key=lambda deployment: deployment.id,
        )

    def host(self, model: Model) -> str:
        return f"{self.url}/model-{model.id}"

    # --- app.baseten.co: what `truss` asks ---

    async def graphql(self, request: Request) -> Response:
        self._check_key(request)
        query = (await request.json())["query"]
        name, arguments = asked(query)
        answers = {
            "teams": self._teams,
            "models": self._models,
            "model": self._model,
            "model_version": self._model_version,
            "truss_validation": self._validation,
            "model_s3_upload_credentials": self._upload_credentials,
            "create_model_from_truss": self._create,
            "create_model_version_from_truss": self._create_version,
            "deploy_draft_truss": self._create_draft,
        }
        if name not in answers:
            return JSONResponse({"errors": [{"message": f"the stand-in has no {name}"}]})
        try:
            return JSONResponse({"data": {name: answers[name](arguments)}})
        except RefusedError as refused:
            extensions = {"code": refused.code}
            return JSONResponse({"errors": [{"message": str(refused), "extensions": extensions}]})

    def _teams(self, arguments: Mapping[str, str]) -> Any:
        return [{"id": "team1", "name": "Winds", "default": True}]

    def _models(self, arguments: Mapping[str, str]) -> Any:
        return [self._described(model) for model in self.models.values()]

    def _model(self, arguments: Mapping[str, str]) -> Any:
        return self._described(self._find(arguments["id"]))

    def _model_version(self, arguments: Mapping[str, str]) -> Any:
        deployment = self._find_deployment(arguments["id"])
        return {**self._version(deployment), "oracle": self._described(deployment.model)}

    def _validation(self, arguments: Mapping[str, str]) -> Any:
        config = decoded(arguments["config"])
        errors = [] if config.get("model_name") else ["model_name is missing"]
        return {"success": not errors, "details": json.dumps({"errors": errors})}

    def _upload_credentials(self, arguments: Mapping[str, str]) -> Any:
        # Truss passes on to boto3 whatever else stands here: that brings the upload to this server.
        return {
            "s3_bucket": "trusses",
            "s3_key": f"models/{secrets.token_hex(8)}.tgz",
            "aws_access_key_id": "stand-in",
            "aws_secret_access_key": "stand-in",
            "aws_session_token": "stand-in",
            "endpoint_url": f"{self.url}/uploads",
            "region_name": "us-west-2",
        }

    def _create(self, arguments: Mapping[str, str]) -> Any:
        environment = arguments.get("environment_name", "production")
        if environment != "production":
            raise RefusedError(404, "Model hasn't been deployed yet. No environments exist.")
        return self._deploy(self._new_model(arguments["name"]), arguments, environment)

    def _create_version(self, arguments: Mapping[str, str]) -> Any:
        model = self._find(arguments["model_id"])
        return self._deploy(model, arguments, arguments.get("environment_name"))

    def _create_draft(self, arguments: Mapping[str, str]) -> Any:
        named = (model for model in self.models.values() if model.name == arguments["name"])
        model = next(named, None) or self._new_model(arguments["name"])
        return self._deploy(model, arguments, None, draft=True)

    def _new_model(self, name: str) -> Model:
        environments = {"production": Environment("production")}
        model = Model(next(self._ids), name, "Winds", environments=environments)
        self.models[model.id] = model
        return model

    def _deploy(
        self,
        model: Model,
        arguments: Mapping[str, str],
        environment: str | None,
        draft: bool = False,
    ) -> Any:
        if environment is not None and environment not in model.environments:
            message = f"Environment {environment} does not exist"
            raise RefusedError(404, message, "RESOURCE_NOT_FOUND")
        config = decoded(arguments["config"])
        s3_key = arguments["s3_key"]
        deployment = Deployment(next(self._ids), model, s3_key, self.uploads[s3_key], config, draft)
        model.deployments.append(deployment)
        production = model.environments["production"]
        if environment:
            model.environments[environment].deployment = deployment
        elif not draft and production.deployment is None:
            production.deployment = deployment
        accelerator = {"name": config["resources"]["accelerator"]}
        oracle = self._described(model)
        return {
            "model_version": {"id": deployment.id, "oracle": oracle, "instance_type": accelerator}
        }

    def _described(self, model: Model) -> dict[str, Any]:
        versions = [self._version(deployment) for deployment in model.deployments]
        primary = next((version for version in versions if version["is_primary"]), None)
        return {
            "id": model.id,
            "name": model.name,
            "hostname": self.host(model),
            "team": {"id": "team1", "name": model.team},
            "versions": versions,
            "primary_version": primary,
        }

    def _version(self, deployment: Deployment) -> dict[str, Any]:
        return {
            "id": deployment.id,
            "semver": "0.0.1",
            "truss_hash": None,
            "truss_signature": None,
            "is_draft": deployment.draft,
            "is_primary": deployment is deployment.model.environments["production"].deployment,
            "current_model_deployment_status": {"status": "ACTIVE"},
        }

    # --- the bucket ---

    async def upload(self, request: Request) -> Response:
        if "Credential=stand-in/" not in request.headers.get("authorization", ""):
            raise RefusedError(403, "not signed with the credentials given for this upload")
        self.uploads[request.path_params["key"]] = await request.body()
        return Response(headers={"ETag": '"stand-in"'})

    # --- api.baseten.co: the management API ---

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

    async def promote(self, request: Request) -> Response:
        model = self._managed(request)
        environment = _find_environment(model, request.path_params["environment"])
        deployment = self._find_deployment((await request.json())["deployment_id"])
        environment.deployment = deployment
        return JSONResponse({"id": deployment.id, "environment": environment.name})

    async def show_settings(self, request: Request) -> Response:
        model = self._managed(request)
        environment = _find_environment(model, request.path_params["environment"])
        answer = JSONResponse(_environment(model, environment))
        environment.settings.update(environment.accepted)  # seen from the next time on
        environment.accepted = {}
        return answer

    async def change_settings(self, request: Request) -> Response:
        environment = _find_environment(self._managed(request), request.path_params["environment"])
        asked_for = (await request.json()).get("autoscaling_settings") or {}
        wanted = {name: value for name, value in asked_for.items() if value is not None}
        check_settings({**environment.settings, **wanted})
        changed = wanted.items() - environment.settings.items()
        environment.accepted = wanted
        return JSONResponse({"status": "ACCEPTED" if changed else "UNCHANGED", "message": ""})

    def _managed(self, request: Request) -> Model:
        """The model a management request is about, unless there is trouble."""
        if self.trouble:
            raise RefusedError(self.trouble.popleft(), "Please try again later.")
        self._check_key(request)
        return self._find(request.path_params["model"])

    # --- model-{id}.api.baseten.co and bridge.baseten.co: requests for the container ---

    async def predict(self, request: Request) -> Response:
        self._check_place(request)
        return await self._forward(request, "v1/models/model:predict")

    async def pass_on(self, request: Request) -> Response:
        self._check_place(request)
        return await self._forward(request, request.path_params["path"])

    async def bridge(self, request: Request) -> Response:
        self._check_key(request)
        self._find(request.path_params["model"])
        return await self._forward(request, f"v1/{request.path_params['path']}")

    def _check_place(self, request: Request) -> None:
        """Refuses a request unless its path names a deployment there is."""
        self._check_key(request)
        names = request.path_params
        if "deployment" in names:
            model = self._find_deployment(names["deployment"]).model
            if names.get("model", model.id) != model.id:
                raise RefusedError(404, "no such deployment of this model")
            return
        model = self._find(names["model"])
        place = names.get("environment") or request.url.path.split("/")[2]
        if place == "development":
            if not any(deployment.draft for deployment in model.deployments):
                raise RefusedError(404, "the model has no development deployment")
        elif _find_environment(model, place).deployment is None:
            raise RefusedError(404, f"nothing is deployed in the environment {place}")

    async def _forward(self, request: Request, path: str) -> Response:
        headers = [(k, v) for k, v in request.headers.items() if k not in ITS_OWN]
        headers.append(("x-baseten-request-id", secrets.token_hex(8)))
        has_body = not {"content-length", "transfer-encoding"}.isdisjoint(request.headers)
        query = request.url.query
        onward = httpx.Request(  # not the client's own way, which would add headers
            request.method,
            f"{self.upstream}/{path}" + (f"?{query}" if query else ""),
            headers=headers,
            content=request.stream() if has_body else None,
        )
        try:
            answer = await self._http.send(onward, stream=True)
        except httpx.TransportError as error:
            raise RefusedError(502, f"the container does not answer: {error!r}") from error

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:  # also when the client has left: that is what stops the generation
                await answer.aclose()

        response = StreamingResponse(pieces(), answer.status_code)
        response.raw_headers = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode() not in ITS_OWN
        ]
        return response

    @asynccontextmanager
    async def _client(self, app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=None, trust_env=False) as self._http:
            yield

    # --- who and what ---

    def _check_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme not in ("Api-Key", "Bearer") or not secrets.compare_digest(key, self.key):
            raise RefusedError(401, "the API key is missing or wrong")

    def _find(self, model: str) -> Model:
        if model not in self.models:
            raise RefusedError(404, f"there is no model {model}")
        return self.models[model]

    def _find_deployment(self, identifier: str) -> Deployment:
        for model in self.models.values():
            for deployment in model.deployments:
                if deployment.id == identifier:
                    return deployment
        raise RefusedError(404, f"there is no deployment {identifier}")


def asked(query: str) -> tuple[str, dict[str, str]]:
    """The one field a GraphQL query of Truss asks for, and its arguments that are strings."""
    head = query.split("{")[1]
    name = re.search(r"\w+", head)
    assert name
    return name.group(), dict(re.findall(r'(\w+): "([^"]*)"', head))


def encoded(config: Mapping[str, Any]) -> str:
    """A config as `truss push` sends it."""
    return base64.b64encode(json.dumps(config).encode()).decode()


def decoded(config: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(base64.b64decode(config))
    return content


def check_settings(settings: Mapping[str, Any]) -> None:
    """`RefusedError` unless each setting is known, an integer and in its range."""
    for name, value in settings.items():
        if name not in SETTINGS:
            raise RefusedError(400, f"{name}: unknown setting")
        _, least, most = SETTINGS[name]
        if type(value) is not int or value < least or (most is not None and value > most):
            upper = f" and at most {most}" if most is not None else ""
            raise RefusedError(400, f"{name} must be at least {least}{upper}, got {value!r}")
    if settings["min_replica"] > settings["max_replica"]:
        raise RefusedError(400, "min_replica must not be above max_replica")


def _find_environment(model: Model, name: str) -> Environment:
    if name not in model.environments:
        raise RefusedError(404, f"the model has no environment {name}")
    return model.environments[name]


def _environment(model: Model, environment: Environment) -> dict[str, Any]:
    current = environment.deployment
    return {
        "name": environment.name,
        "model_id": model.id,
        "current_deployment": {"id": current.id} if current else None,
        "autoscaling_settings": environment.settings,
    }


def _refused(request: Request, refused: RefusedError) -> Response:
    """The shapes of the real ones' errors.

    The gateway's: https://docs.baseten.co/inference/errors; of the management API the one for too
    many requests, https://docs.baseten.co/reference/management-api/rate-limits, and what Truss
    reads of its others, `message`.
    """
    if refused.status == 429:
        return JSONResponse({"error": str(refused), "retry_after": 7}, refused.status)
    name = "message" if request.url.path.startswith("/v1/") else "error"
    return JSONResponse({name: str(refused)}, refused.status)


@contextmanager
def running(upstream: str) -> Iterator[Baseten]:
    """The service in a thread, until the end of the block."""
    baseten = Baseten(upstream)
    with serving(baseten.app) as url:
        baseten.url = url
        yield baseten


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of an application, served in a thread until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, log_level="critical", ws="none", timeout_graceful_shutdown=1, loop="asyncio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve([listener])), name="stand-in", daemon=True
        )
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
