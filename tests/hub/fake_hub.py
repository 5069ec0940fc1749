"""A model hub on this machine: as much of its HTTP interface as huggingface_hub uses, and a log of who asked for what.

Repositories live in memory: name -> revision -> file -> content. Every commit has a hash of its content.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class FakeHub:
    """The server; use it as a context."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.down = False
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        return self.repositories[repository][revision]

    def find(self, repository: str, revision: str) -> dict[str, bytes] | None:
        """The files at a branch, or at a commit."""
        branches = self.repositories[repository]
        if revision in branches:
            return branches[revision]
        return next((files for files in branches.values() if commit_of(files) == revision), None)


def taken_for_real(fake: FakeHub, monkeypatch: Any, cache: Path) -> None:
    """Let huggingface_hub, which has read its settings from the environment, ask this hub."""
    from huggingface_hub import constants

    template = fake.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", fake.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.fake.asked.append((self.command, path))
        if self.fake.down:
            self._send(503, {"error": "down"})
            return
        for pattern, handle in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None:
                handle(self, body, *match.groups())
                return
        self._send(404, {"error": f"the fake hub knows no {self.command} {path}"})

    def _send(self, status: int, data: Any = None, headers: dict[str, str] | None = None) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _may(self, repository: str, *, write: bool = False) -> bool:
        known = self.headers.get("Authorization") == "Bearer hf_right"
        if write and not known:
            self._send(401, {"error": "Invalid username or password."}, {"X-Error-Message": "Invalid user"})
            return False
        if repository not in self.fake.repositories or (repository in self.fake.private and not known):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return False
        return True

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        self.fake.repositories.setdefault(name, {"main": {".gitattributes": b""}})
        if not self._may(name, write=True):
            del self.fake.repositories[name]
            return
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.fake.private.add(name)
        self._send(200, {"url": f"{self.fake.address}/{name}", "id": name})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        if self._may(name, write=True):
            branches = self.fake.repositories[name]
            if branch in branches:
                self._send(409, {"error": "exists"})
                return
            branches[branch] = dict(branches["main"])
            self._send(200, {})

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if not self._may(name):
            return
        files = self.fake.find(name, revision or "main")
        if files is None:
            self._send(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": one} for one in files]
        self._send(200, {"id": name, "sha": commit_of(files), "siblings": siblings, "private": False, "tags": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if self._may(name):
            files = self.fake.find(name, revision) or {}
            rows = [
                {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                for k, v in files.items()
            ]
            self._send(200, rows)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._may(name, write=True):
            rows = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._send(200, {"files": rows})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._may(name, write=True):
            return
        files = self.fake.repositories[name][revision]
        for line in body.decode().splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                assert row["value"]["encoding"] == "base64"
                files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
        sha = commit_of(files)
        address = f"{self.fake.address}/{name}/commit/{sha}"
        self._send(200, {"success": True, "commitUrl": address, "commitOid": sha})

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if not self._may(name):
            return
        files = self.fake.find(name, revision)
        if files is None or file not in files:
            code = "RevisionNotFound" if files is None else "EntryNotFound"
            self._send(404, {"error": code}, {"X-Error-Code": code})
            return
        content = files[file]
        etag = hashlib.sha1(content).hexdigest()
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(files)})

    def whoami(self, body: bytes) -> None:
        self._send(200, {"name": "user", "type": "user", "orgs": []})

    def validate(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})


_N = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("/api/repos/create", _Handler.create),
    ("/api/whoami-v2", _Handler.whoami),
    ("/api/validate-yaml", _Handler.validate),
    (rf"/api/models/{_N}/branch/([\w.-]+)", _Handler.branch),
    (rf"/api/models/{_N}/preupload/([\w.-]+)", _Handler.preupload),
    (rf"/api/models/{_N}/commit/([\w.-]+)", _Handler.commit),
    (rf"/api/models/{_N}/tree/([\w.-]+)", _Handler.tree),
    (rf"/api/models/{_N}/revision/([\w.-]+)", _Handler.info),
    (rf"/api/models/{_N}", _Handler.info),
    (rf"/{_N}/resolve/([\w.-]+)/(.+)", _Handler.resolve),
)
