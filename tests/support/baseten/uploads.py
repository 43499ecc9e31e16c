"""The S3 bucket that a push is uploaded to.

Promises: an archive is stored byte for byte. Rejects anything not signed with the credentials that
were issued for the upload.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.baseten.state import Baseten, RejectedError


class Uploads:
    def __init__(self, baseten: Baseten) -> None:
        self.baseten = baseten
        self.routes = [Route("/uploads/{bucket}/{key:path}", self.upload, methods=["PUT"])]

    async def upload(self, request: Request) -> Response:
        if "Credential=stand-in/" not in request.headers.get("authorization", ""):
            raise RejectedError(403, "not signed with the credentials given for this upload")
        self.baseten.uploads[request.path_params["key"]] = await request.body()
        return Response(headers={"ETag": '"stand-in"'})
