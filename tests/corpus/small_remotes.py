"""A hub of data sets and an object store on this machine: what huggingface_hub and s3fs ask of them to list
and read files, and no more.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Server:
    """Files by name, such as "org/name/data/a.jsonl"; the first parts of a name are the data set or bucket.

    `asked` lists method, path and range of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    handler: ClassVar[type[Answering]]

    def __enter__(self) -> Server:
        handler = type("Handler", (self.handler,), {"server_of_files": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


class Answering(BaseHTTPRequestHandler):
    server_of_files: Server
    protocol_version = "HTTP/1.0"  # one connection a request: none outlives the server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server_of_files.asked.append((self.command, path, self.headers.get("Range", "")))
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.answer(path, query)

    def answer(self, path: str, query: Mapping[str, str]) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_content(self, content: bytes, headers: Mapping[str, str]) -> None:
        """All of it, or the range that was asked for."""
        asked = self.headers.get("Range")
        if asked is None:
            self.send(200, content, {**headers, "Accept-Ranges": "bytes"})
            return
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last or len(content)), len(content) - 1)
        if start > end:
            self.send(416, b"")
            return
        about = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        self.send(206, content[start : end + 1], {**headers, **about})


class _Hub(Answering):
    def answer(self, path: str, query: Mapping[str, str]) -> None:
        kind, owner, name, *rest = [*path.removeprefix("api/").split("/"), "", ""]
        rest = [each for each in rest if each]
        data_set = f"{owner}/{name}/"
        files = {
            each.removeprefix(data_set): content
            for each, content in self.server_of_files.files.items()
            if each.startswith(data_set)
        }
        if kind != "datasets" or not files:
            self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif not rest or rest[0] == "revision":
            self.send_json({"id": f"{owner}/{name}", "sha": "a" * 40, "siblings": [], "private": False})
        elif rest[0] == "tree":
            self.send_json(
                _tree(files, "/".join(rest[2:]), is_whole=query.get("recursive", "").lower() == "true")
            )
        elif rest[0] == "resolve" and "/".join(rest[2:]) in files:
            content = files["/".join(rest[2:])]
            self.send_content(content, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": "a" * 40})
        else:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})

    def send_json(self, data: object) -> None:
        self.send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})


def _tree(files: Mapping[str, bytes], folder: str, *, is_whole: bool) -> list[dict[str, object]]:
    """Files and folders below a folder, as the hub lists them; only its own entries unless `is_whole`."""
    entries: dict[str, dict[str, object]] = {}
    for name, content in files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            path = "/".join(parts[:depth])
            entries[path] = {"type": "directory", "path": path, "oid": _digest(path.encode()), "size": 0}
        entries[name] = {"type": "file", "path": name, "oid": _digest(content), "size": len(content)}
    start = f"{folder}/" if folder else ""
    return [
        about
        for path, about in sorted(entries.items())
        if path.startswith(start) and path != folder and (is_whole or "/" not in path.removeprefix(start))
    ]


class SmallHub(Server):
    """Data sets of a hub, named owner/name."""

    handler = _Hub


class _Store(Answering):
    def answer(self, path: str, query: Mapping[str, str]) -> None:
        bucket, _, key = path.partition("/")
        files = {
            name.removeprefix(f"{bucket}/"): content
            for name, content in self.server_of_files.files.items()
            if name.startswith(f"{bucket}/")
        }
        if "Authorization" not in self.headers:
            self.send_fault(403, "AccessDenied")
        elif not files:
            self.send_fault(404, "NoSuchBucket")
        elif not key:
            self.send_list(bucket, files, query.get("prefix", ""), query.get("delimiter", ""))
        elif key in files:
            about = {"ETag": f'"{_digest(files[key])}"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
            self.send_content(files[key], about)
        else:
            self.send_fault(404, "NoSuchKey")

    def send_fault(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self.send(status, body.encode(), {"Content-Type": "application/xml"})

    def send_list(self, bucket: str, files: Mapping[str, bytes], prefix: str, delimiter: str) -> None:
        """A page that holds all: ListObjectsV2."""
        found, folders = [], set()
        for key, content in sorted(files.items()):
            if not key.startswith(prefix):
                continue
            inside, cut, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            if cut:
                folders.add(f"{prefix}{inside}{delimiter}")
            else:
                found.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                    "<LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag></Contents>"
                )
        common = [
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
        ]
        body = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{''.join(found + common)}</ListBucketResult>"
        )
        self.send(200, body.encode(), {"Content-Type": "application/xml"})


class SmallStore(Server):
    """Buckets of an object store that asks for credentials, and takes any."""

    handler = _Store


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
