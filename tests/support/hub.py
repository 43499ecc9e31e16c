"""A stand-in for the Hugging Face hub, with one gated model: HF_ENDPOINT points to it in tests.

Promises: as on the hub, a repo's metadata is public; its files are for tokens whose owner has
accepted the terms; errors have the hub's statuses and X-Error-Code; large files are redirected to
another host, with a signed address and without the token. That host rejects a request with a token,
and both reject any path that the clients here do not need. Listens on loopback only.
"""

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 10 << 20  # bytes; the hub keeps files from this size, and all weights, outside of git


@dataclass(frozen=True)
class File:
    path: Path
    size: int  # bytes
    blob: str  # git's hash of the content
    sha256: str
    large: bool

    @classmethod
    def of(cls, path: Path) -> "File":
        content = path.read_bytes()
        return cls(
            path,
            len(content),
            hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            hashlib.sha256(content).hexdigest(),
            path.suffix == ".safetensors" or len(content) > LARGE,
        )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Hub:
    """`member` is the token of a user who has accepted the terms, `outsider` of one who has not."""

    repo: str
    commit: str
    files: dict[str, File]
    url: str = ""
    storage: str = ""  # the address of large files; to the clients another origin
    member: str = field(default_factory=lambda: f"hf_{secrets.token_hex(17)}")
    outsider: str = field(default_factory=lambda: f"hf_{secrets.token_hex(17)}")
    signature: str = field(default_factory=lambda: secrets.token_hex(8))
    seen: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status

    def answer(self, target: str, authorization: str | None, ranges: str | None) -> Answer:
        """The answer to a GET, or without its body to a HEAD."""
        address = urlsplit(target)
        path = unquote(address.path)
        if path.startswith("/storage/"):
            return self._stored(path, address.query, authorization, ranges)
        token = authorization.removeprefix("Bearer ") if authorization else None
        if token not in (None, self.member, self.outsider):
            return error(401, None, "Invalid credentials in Authorization header")
        repo = re.escape(self.repo)
        if found := re.fullmatch(rf"/{repo}/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], found[2], token, ranges)
        if found := re.fullmatch(rf"/api/models/{repo}(/revision/([^/]+))?", path):
            return self._of_revision(found[2] or "main", self._info())
        if found := re.fullmatch(rf"/api/models/{repo}/tree/([^/]+)", path):
            return self._of_revision(found[1], self._tree())
        return error(404 if token else 401, "RepoNotFound", "Repository not found")

    def _file(self, revision: str, name: str, token: str | None, ranges: str | None) -> Answer:
        restricted = f"Access to model {self.repo} is restricted"
        if token is None:
            told = f"{restricted}. You must have access to it and be authenticated to access it."
            return error(401, "GatedRepo", told)
        if token == self.outsider:
            told = f"{restricted} and you are not in the authorized list."
            return error(
                403, "GatedRepo", f"{told} Visit {self.url}/{self.repo} to ask for access."
            )
        if revision not in ("main", self.commit):
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if name not in self.files:
            return error(404, "EntryNotFound", "Entry not found")
        file = self.files[name]
        headers = {"X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
        if not file.large:
            return part(file, {**headers, "ETag": f'"{file.blob}"'}, ranges)
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"'}
        location = f"{self.storage}/storage/{file.sha256}?Signature={self.signature}"
        return Answer(302, {**headers, "Location": location})

    def _stored(
        self, path: str, query: str, authorization: str | None, ranges: str | None
    ) -> Answer:
        if authorization is not None:  # S3 does not accept both either
            return error(400, None, "Only one auth mechanism allowed")
        if query != f"Signature={self.signature}":
            return error(403, None, "AccessDenied")
        file = next(file for file in self.files.values() if path == f"/storage/{file.sha256}")
        return part(file, {"ETag": f'"{file.sha256}"'}, ranges)

    def _of_revision(self, revision: str, told: Any) -> Answer:
        if revision not in ("main", self.commit):
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def _info(self) -> dict[str, Any]:
        names = [{"rfilename": name} for name in self.files]
        return {"id": self.repo, "sha": self.commit, "gated": "auto", "siblings": names}

    def _tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": file.size, "oid": file.blob}
            | (
                {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}}
                if file.large
                else {}
            )
            for name, file in self.files.items()
        ]


def error(status: int, code: str | None, message: str) -> Answer:
    headers = {"X-Error-Message": message, "Content-Type": "application/json"}
    if code:
        headers["X-Error-Code"] = code
    return Answer(status, headers, json.dumps({"error": message}).encode())


def part(file: File, headers: dict[str, str], ranges: str | None) -> Answer:
    """The file, or the part that a Range header ("bytes=0-99", "bytes=100-") requests."""
    content = file.path.read_bytes()
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", ranges or "")
    if not asked:
        return Answer(200, headers, content)
    first, last = int(asked[1]), min(int(asked[2] or file.size), file.size - 1)
    if first > last:
        return Answer(416, {**headers, "Content-Range": f"bytes */{file.size}"})
    span = f"bytes {first}-{last}/{file.size}"
    return Answer(206, {**headers, "Content-Range": span}, content[first : last + 1])


@contextmanager
def serving(repo: str, commit: str, folder: Path) -> Iterator[Hub]:
    """The hub with the files of `folder` as `repo` at `commit`; stopped at the end."""
    files = {
        str(path.relative_to(folder)): File.of(path) for path in folder.rglob("*") if path.is_file()
    }
    hub = Hub(repo, commit, dict(sorted(files.items())))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers
            answer = hub.answer(self.path, asked.get("Authorization"), asked.get("Range"))
            hub.seen.append((self.command, urlsplit(self.path).path, answer.status))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:
            pass  # `seen` records it

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that disconnected; its own error shows what it missed

    with Server(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        hub.storage = f"http://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
