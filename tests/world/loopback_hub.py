"""A Hub on the loopback: folders on disk, served to the real Hugging Face clients as repositories.

root/models/<org>/<name>/... and root/datasets/<org>/<name>/... are the main branches of repositories, other branches
are in root/branches/models/<org>/<name>/<branch>/...; root/files/... are plain files, at `file_url`. What is on disk
now is what a branch has: a changed file makes a new commit, and the one before is gone.

Anyone may read. With WRITE_TOKEN one may push, and `Fault`s make that go wrong.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITE_TOKEN = "hf_" + "MayWriteToTheLoopbackHub" + "0" * 10
READ_TOKEN = "hf_" + "MayReadTheLoopbackHub" + "0" * 13
ROLES = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
BIG_FILES = (".safetensors", ".bin", ".pt", ".pth", ".parquet", ".png")  # uploaded apart from the commit


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve `root` on a free port while the context lasts; gives the endpoint, without a trailing slash."""
    with running(root) as hub:
        yield hub.endpoint


@contextmanager
def running(root: Path, port: int = 0) -> "Iterator[Hub]":
    """The same, with what was pushed, and faults to be set."""
    hub = Hub(root, port)
    # Leaving the context waits for a poll; at the default of 0.5 s that adds up over a suite.
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.closing.set()
        hub.shutdown()
        hub.server_close()


def file_url(endpoint: str, path: str) -> str:
    """The URL of root/files/`path`, by another host name: datasets takes endpoint/a/b/c for a repository."""
    return f"{endpoint.replace('127.0.0.1', 'localhost')}/files/{path}"


def environment(endpoint: str, cache: Path) -> dict[str, str]:
    """The whole environment of a child process with this Hub, this cache and no token.

    The libraries read these variables at import: set later, they change nothing.
    """
    # Tokens, caches, offline switches and proxies are not inherited.
    dropped = re.compile(r"(HF|HUGGING_?FACE|TRANSFORMERS)_|.+_PROXY$", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not dropped.match(name)} | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        # load_dataset also calls a counter on S3 and datasets-server.<endpoint>, and goes on when they fail.
        # With the hub as proxy they fail at once, and not even a name lookup leaves the machine.
        "HTTP_PROXY": endpoint,
        "HTTPS_PROXY": endpoint,
        "NO_PROXY": "127.0.0.1,localhost",
    }


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a GET gets; a HEAD gets the same without the body."""

    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Refusal(Exception):
    """Why a request gets no content; from the code a client chooses the exception it raises."""

    def __init__(self, code: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        # The Hub says 401 to anyone without a token: what is not there might be private.
        status = HTTPStatus.UNAUTHORIZED if code == "RepoNotFound" else HTTPStatus.NOT_FOUND
        self.answer = Answer(status=status, headers={"X-Error-Code": code} | (headers or {}))


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository at one commit, with the content of each file by its path."""

    id: str
    commit: str
    files: dict[str, bytes]


def find(root: Path, url: str) -> Answer:
    """The answer to a GET; names are looked up among those below `root`, so that no '..' leads out of it."""
    parts = urlsplit(url)
    match [unquote(segment) for segment in parts.path.split("/")[1:]]:  # a/b may be one segment, a%2Fb
        case ["files", *path]:
            return content(read(root / "files"), path, {})
        case ["api", "models" | "datasets" as kind, org, name]:
            return describe(checkout(root, kind, f"{org}/{name}", "main"))
        case ["api", "models" | "datasets" as kind, org, name, "revision", revision]:
            return describe(checkout(root, kind, f"{org}/{name}", revision))
        case ["api", "models" | "datasets" as kind, org, name, "refs"]:
            return list_refs(root, kind, f"{org}/{name}")
        case ["api", "models" | "datasets" as kind, org, name, "tree", revision, *path]:
            recursive = parse_qs(parts.query).get("recursive") == ["true"]
            return list_tree(checkout(root, kind, f"{org}/{name}", revision), path, recursive=recursive)
        case ["datasets", org, name, "resolve", revision, *path]:
            repository = checkout(root, "datasets", f"{org}/{name}", revision)
            return content(repository.files, path, {"X-Repo-Commit": repository.commit})
        case [org, name, "resolve", revision, *path]:
            repository = checkout(root, "models", f"{org}/{name}", revision)
            return content(repository.files, path, {"X-Repo-Commit": repository.commit})
        case ["api", "models" | "datasets", _] | [_, "resolve", *_]:  # an id without an org
            raise Refusal("RepoNotFound")
    raise Refusal("PageNotFound")


def checkout(root: Path, kind: str, repo_id: str, revision: str) -> Repository:
    for branch, folder in branches(root, kind, repo_id).items():
        files = read(folder)
        commit = hashlib.sha1(json.dumps({path: oid(files[path]) for path in files}).encode()).hexdigest()
        if revision in (branch, commit):
            return Repository(id=repo_id, commit=commit, files=files)
    raise Refusal("RevisionNotFound")


def branches(root: Path, kind: str, repo_id: str) -> dict[str, Path]:
    """The folder of each branch, main first."""
    folders = {folder.relative_to(root / kind).as_posix(): folder for folder in (root / kind).glob("*/*")}
    if repo_id not in folders:
        raise Refusal("RepoNotFound")
    others = sorted((root / "branches" / kind / repo_id).glob("*"))
    return {"main": folders[repo_id]} | {folder.name: folder for folder in others}


def read(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def oid(content: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def describe(repository: Repository) -> Answer:
    siblings = [{"rfilename": path} for path in repository.files]
    return in_json({"id": repository.id, "sha": repository.commit, "tags": [], "siblings": siblings})


def list_refs(root: Path, kind: str, repo_id: str) -> Answer:
    found = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": checkout(root, kind, repo_id, name).commit}
        for name in branches(root, kind, repo_id)
    ]
    return in_json({"branches": found, "tags": [], "converts": []})


def list_tree(repository: Repository, path: list[str], *, recursive: bool) -> Answer:
    start = "".join(f"{name}/" for name in path)
    files = repository.files
    folders = {parent.as_posix() for path in files for parent in PurePosixPath(path).parents} - {"."}
    found = sorted(path for path in files.keys() | folders if path.startswith(start))
    if start and not found:
        raise Refusal("EntryNotFound")
    rows = [
        {"type": "file", "path": path, "oid": oid(files[path]), "size": len(files[path])}
        if path in files
        else {"type": "directory", "path": path, "oid": repository.commit, "size": 0}
        for path in found
        if recursive or "/" not in path.removeprefix(start)
    ]
    return in_json(rows)


def in_json(value: object) -> Answer:
    return Answer(headers={"Content-Type": "application/json"}, body=json.dumps(value).encode())


def content(files: dict[str, bytes], path: list[str], headers: dict[str, str]) -> Answer:
    """One file; a refusal has the `headers` too, since clients also cache which files a commit lacks."""
    body = files.get("/".join(path))
    if body is None:
        raise Refusal("EntryNotFound", headers)
    return Answer(headers=headers | {"ETag": f'"{oid(body)}"', "Accept-Ranges": "bytes"}, body=body)


def cut(whole: Answer, wanted: str) -> Answer:
    """The part that a Range header wants; clients that stream take whatever comes for it."""
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    size = len(whole.body)
    if span is None or int(span[1]) >= size:
        return whole
    first, last = int(span[1]), min(int(span[2] or size), size - 1)
    headers = whole.headers | {"Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(status=HTTPStatus.PARTIAL_CONTENT, headers=headers, body=whole.body[first : last + 1])


@dataclass(kw_only=True)
class Fault:
    """Befalls the next `times` requests whose "METHOD /path" the pattern `match` finds."""

    match: str
    times: int = 1_000_000
    seconds: float = 0.0
    """That it takes longer; a server that never answers takes an hour."""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False


class Hub(ThreadingHTTPServer):
    """The server of one root, and what was pushed to it."""

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.root = root
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.closing = threading.Event()
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.created: dict[str, Any] = {}
        """What was asked for with each new repository."""
        self.messages: list[str] = []
        """Of the commits, oldest first."""
        self.uploads: dict[str, bytes] = {}
        """Big files by their SHA-256."""

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def server_close(self) -> None:
        """As when the server is killed: open connections end, too."""
        super().server_close()
        for connection in self.connections:
            with suppress(OSError):  # it has ended already
                connection.shutdown(socket.SHUT_RDWR)

    def fault(self, line: str) -> Fault | None:
        with self.lock:
            self.requests.append(line)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
        return None

    def take(self, method: str, path: str, body: bytes) -> Answer:
        """The answer to a request that brings something, from somebody who may write."""
        with self.lock:
            match [method, *(unquote(segment) for segment in path.split("/")[1:])]:
                case ["POST", "api", "validate-yaml"]:
                    return in_json({"errors": [], "warnings": []})
                case ["POST", "api", "repos", "create"]:
                    return self.create(json.loads(body))
                case ["POST", "api", "models" | "datasets" as kind, org, name, "preupload", revision]:
                    return self.preupload(kind, f"{org}/{name}", revision, json.loads(body)["files"])
                case ["POST", "api", "models" | "datasets" as kind, org, name, "branch", branch]:
                    repo_id = f"{org}/{name}"
                    if branch in branches(self.root, kind, repo_id):
                        return Answer(status=HTTPStatus.CONFLICT)
                    copy = self.root / "branches" / kind / repo_id / branch
                    shutil.copytree(self.root / kind / repo_id, copy)
                    return in_json({})
                case ["POST", "api", "models" | "datasets" as kind, org, name, "commit", revision]:
                    return self.commit(kind, f"{org}/{name}", revision, body)
                case ["POST", *_, "info", "lfs", "objects", "batch"]:
                    return self.offer_uploads(json.loads(body)["objects"])
                case ["PUT", "uploads", sha256] if hashlib.sha256(body).hexdigest() == sha256:
                    self.uploads[sha256] = body
                    return Answer()
        raise Refusal("PageNotFound")

    def create(self, wanted: dict[str, Any]) -> Answer:
        kind = f"{wanted.get('type', 'model')}s"
        repo_id = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        url = {"url": f"{self.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"}
        folder = self.root / kind / repo_id
        if folder.is_dir():
            return Answer(status=HTTPStatus.CONFLICT, body=json.dumps(url).encode())
        folder.mkdir(parents=True)
        self.created[repo_id] = wanted
        return in_json(url)

    def preupload(self, kind: str, repo_id: str, revision: str, files: list[dict[str, Any]]) -> Answer:
        there = checkout(self.root, kind, repo_id, revision).files
        answers = []
        for path in (file["path"] for file in files):
            big = path.endswith(BIG_FILES)
            old = there.get(path)
            known = None if old is None else hashlib.sha256(old).hexdigest() if big else oid(old)
            mode = "lfs" if big else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        return in_json({"files": answers})

    def offer_uploads(self, objects: list[dict[str, Any]]) -> Answer:
        answers = [
            {**each, "actions": {"upload": {"href": f"{self.endpoint}/uploads/{each['oid']}"}}} for each in objects
        ]
        return in_json({"transfer": "basic", "objects": answers})

    def commit(self, kind: str, repo_id: str, revision: str, body: bytes) -> Answer:
        folder = branches(self.root, kind, repo_id).get(revision)
        if folder is None:
            raise Refusal("RevisionNotFound")
        for key, value in ((line["key"], line["value"]) for line in map(json.loads, body.splitlines())):
            if key == "header":
                self.messages.append(value["summary"])
            elif key == "deletedFile":
                (folder / value["path"]).unlink()
            else:
                path = folder / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                small = base64.b64decode(value.get("content", ""))
                path.write_bytes(self.uploads[value["oid"]] if key == "lfsFile" else small)
        commit = checkout(self.root, kind, repo_id, revision).commit
        return in_json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.endpoint}/{repo_id}/commit/{commit}"}
        )


class Connection(BaseHTTPRequestHandler):
    """A client's connection to a Hub, open from request to request."""

    server: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # sends head and body together: apart, the body waits 40 ms for the client's delayed ACK

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(f"{self.command} {self.path}")
        if fault is not None and self.server.closing.wait(fault.seconds):
            self.close_connection = True
            return
        if fault is not None and fault.reset:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            if fault is not None and fault.status is not None:
                answer = Answer(status=HTTPStatus(fault.status), headers=dict(fault.headers))
            else:
                answer = self.answer(body)
        except Refusal as refusal:
            answer = refusal.answer
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self, body: bytes) -> Answer:
        role = ROLES.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        path = urlsplit(self.path).path
        if path == "/api/whoami-v2":
            token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}}
            tester = {"type": "user", "name": "tester", "fullname": "tester", "orgs": [], "auth": token}
            return in_json(tester) if role else Answer(status=HTTPStatus.UNAUTHORIZED)
        if self.command in ("GET", "HEAD"):
            return cut(find(self.server.root, self.path), self.headers.get("Range", ""))
        if path != "/api/validate-yaml" and not path.startswith("/uploads/"):  # those are asked without a token
            if role is None:
                return Answer(status=HTTPStatus.UNAUTHORIZED)
            if role == "read":
                return Answer(status=HTTPStatus.FORBIDDEN)
        return self.server.take(self.command, path, body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests speak through their asserts."""
