"""A hub of models on this machine: what huggingface_hub asks of one to fetch a snapshot, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"


@dataclass
class Model:
    """Commits by their hash, each with its files; branches and tags name commits."""

    commits: dict[str, dict[str, bytes]]
    names: dict[str, str]
    is_private: bool = False
    is_gated: bool = False
    cut_after: int | None = None  # bytes after which the connection breaks


@dataclass
class SmallHub:
    """The server; `asked` lists the paths of every request."""

    models: dict[str, Model] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> SmallHub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()  # twice does no harm

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        return {path.split("/resolve/")[1].split("/", 1)[1] for path in self.asked if "/resolve/" in path}


class _Handler(BaseHTTPRequestHandler):
    hub: SmallHub
    protocol_version = "HTTP/1.0"  # one connection a request: none outlives the server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.with_body = with_body
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(path)
        is_api = path.startswith("api/models/")
        owner, name, verb, *rest = path.removeprefix("api/models/").split("/")
        model = self.hub.models.get(f"{owner}/{name}")
        if not self.may_see(model):
            return
        revision, *inner = rest
        commit = model.names.get(revision, revision)
        files = model.commits.get(commit)
        if files is None:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif is_api and verb == "revision":
            siblings = [{"rfilename": file} for file in files]
            self.send_json({"id": f"{owner}/{name}", "sha": commit, "siblings": siblings, "private": False})
        elif is_api and verb == "tree":
            self.send_json(
                [
                    {"type": "file", "path": file, "size": len(content), "oid": _digest(content)}
                    for file, content in files.items()
                ]
            )
        elif verb == "resolve" and "/".join(inner) in files:
            content = files["/".join(inner)]
            headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            self.send(200, content, headers, cut_after=model.cut_after)
        else:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def may_see(self, model: Model | None) -> bool:
        """Say what the real hub says to someone who may not."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given != TOKEN:
            self.send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif model is None or (model.is_private and not given):
            self.send(401 if not given else 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif model.is_gated and not given:
            self.send(401, b"", {"X-Error-Code": "GatedRepo"})
        else:
            return True
        return False

    def send_json(self, data: object) -> None:
        self.send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str], cut_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not self.with_body:
            return
        self.wfile.write(body[:cut_after])


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
