"""app.baseten.co: the GraphQL queries of the unmodified `truss push`.

Promises: a push creates a model or a deployment from what was uploaded before. Rejects, in
GraphQL's format: an unknown model, an environment that does not exist, any other kind of query.
"""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.baseten.state import Baseten, Deployment, Environment, Model, RejectedError


class GraphQL:
    def __init__(self, baseten: Baseten) -> None:
        self.baseten = baseten
        self.routes = [Route("/graphql/", self.graphql, methods=["POST"])]

    async def graphql(self, request: Request) -> Response:
        self.baseten.check_key(request)
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
            return JSONResponse({"errors": [{"message": f"the fake has no {name}"}]})
        try:
            return JSONResponse({"data": {name: answers[name](arguments)}})
        except RejectedError as refused:
            extensions = {"code": refused.code}
            return JSONResponse({"errors": [{"message": str(refused), "extensions": extensions}]})

    def _teams(self, arguments: Mapping[str, str]) -> Any:
        return [{"id": "team1", "name": "Winds", "default": True}]

    def _models(self, arguments: Mapping[str, str]) -> Any:
        return [self._described(model) for model in self.baseten.models.values()]

    def _model(self, arguments: Mapping[str, str]) -> Any:
        return self._described(self.baseten.find(arguments["id"]))

    def _model_version(self, arguments: Mapping[str, str]) -> Any:
        deployment = self.baseten.find_deployment(arguments["id"])
        return {**self._version(deployment), "oracle": self._described(deployment.model)}

    def _validation(self, arguments: Mapping[str, str]) -> Any:
        config = decoded(arguments["config"])
        errors = [] if config.get("model_name") else ["model_name is missing"]
        return {"success": not errors, "details": json.dumps({"errors": errors})}

    def _upload_credentials(self, arguments: Mapping[str, str]) -> Any:
        # Truss passes any other fields here to boto3, so the upload comes to this server.
        return {
            "s3_bucket": "trusses",
            "s3_key": f"models/{secrets.token_hex(8)}.tgz",
            "aws_access_key_id": "stand-in",
            "aws_secret_access_key": "stand-in",
            "aws_session_token": "stand-in",
            "endpoint_url": f"{self.baseten.url}/uploads",
            "region_name": "us-west-2",
        }

    def _create(self, arguments: Mapping[str, str]) -> Any:
        environment = arguments.get("environment_name", "production")
        if environment != "production":
            raise RejectedError(404, "Model hasn't been deployed yet. No environments exist.")
        return self._deploy(self._new_model(arguments["name"]), arguments, environment)

    def _create_version(self, arguments: Mapping[str, str]) -> Any:
        model = self.baseten.find(arguments["model_id"])
        return self._deploy(model, arguments, arguments.get("environment_name"))

    def _create_draft(self, arguments: Mapping[str, str]) -> Any:
        named = (model for model in self.baseten.models.values() if model.name == arguments["name"])
        model = next(named, None) or self._new_model(arguments["name"])
        return self._deploy(model, arguments, None, draft=True)

    def _new_model(self, name: str) -> Model:
        environments = {"production": Environment("production")}
        model = Model(self.baseten.new_id(), name, "Winds", environments=environments)
        self.baseten.models[model.id] = model
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
            raise RejectedError(404, message, "RESOURCE_NOT_FOUND")
        config = decoded(arguments["config"])
        s3_key = arguments["s3_key"]
        deployment = Deployment(
            self.baseten.new_id(), model, s3_key, self.baseten.uploads[s3_key], config, draft
        )
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
            "hostname": self.baseten.host(model),
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


def asked(query: str) -> tuple[str, dict[str, str]]:
    """The one field that a GraphQL query of Truss requests, and its string arguments."""
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
