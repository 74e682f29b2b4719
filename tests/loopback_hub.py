"""A read-only Hub on the loopback: folders on disk, served to the real Hugging Face clients as repositories.

root/models/<org>/<name>/... and root/datasets/<org>/<name>/... are repositories with the one branch main;
root/files/... are plain files, at `file_url`. What lies on disk now is what main holds: a changed file makes
a new commit, and the one before is gone.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve `root` on a free port while the context lasts; gives the endpoint, with no slash at its end."""
    hub = Hub(root)
    # Leaving the context waits for a poll; at the default of 0.5 s that adds up over a suite.
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{hub.server_port}"
    finally:
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
            return describe(checkout(root / kind, f"{org}/{name}", "main"))
        case ["api", "models" | "datasets" as kind, org, name, "revision", revision]:
            return describe(checkout(root / kind, f"{org}/{name}", revision))
        case ["api", "models" | "datasets" as kind, org, name, "refs"]:
            return list_refs(checkout(root / kind, f"{org}/{name}", "main"))
        case ["api", "models" | "datasets" as kind, org, name, "tree", revision, *path]:
            recursive = parse_qs(parts.query).get("recursive") == ["true"]
            return list_tree(checkout(root / kind, f"{org}/{name}", revision), path, recursive=recursive)
        case ["datasets", org, name, "resolve", revision, *path]:
            repository = checkout(root / "datasets", f"{org}/{name}", revision)
            return content(repository.files, path, {"X-Repo-Commit": repository.commit})
        case [org, name, "resolve", revision, *path]:
            repository = checkout(root / "models", f"{org}/{name}", revision)
            return content(repository.files, path, {"X-Repo-Commit": repository.commit})
        case ["api", "models" | "datasets", _] | [_, "resolve", *_]:  # an id without an org
            raise Refusal("RepoNotFound")
    raise Refusal("PageNotFound")


def checkout(repositories: Path, repo_id: str, revision: str) -> Repository:
    folders = {folder.relative_to(repositories).as_posix(): folder for folder in repositories.glob("*/*")}
    if repo_id not in folders:
        raise Refusal("RepoNotFound")
    files = read(folders[repo_id])
    commit = hashlib.sha1(json.dumps({path: oid(files[path]) for path in files}).encode()).hexdigest()
    if revision not in ("main", commit):
        raise Refusal("RevisionNotFound")
    return Repository(id=repo_id, commit=commit, files=files)


def read(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def oid(content: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def describe(repository: Repository) -> Answer:
    siblings = [{"rfilename": path} for path in repository.files]
    return in_json({"id": repository.id, "sha": repository.commit, "tags": [], "siblings": siblings})


def list_refs(repository: Repository) -> Answer:
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commit}
    return in_json({"branches": [main], "tags": [], "converts": []})


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
    """The part that a Range header wants; clients that stream take what comes for it without a look."""
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    size = len(whole.body)
    if span is None or int(span[1]) >= size:
        return whole
    first, last = int(span[1]), min(int(span[2] or size), size - 1)
    headers = whole.headers | {"Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(status=HTTPStatus.PARTIAL_CONTENT, headers=headers, body=whole.body[first : last + 1])


class Hub(ThreadingHTTPServer):
    """The server of one root."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.root = root


class Connection(BaseHTTPRequestHandler):
    """A client's connection to a Hub, open from request to request."""

    server: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # sends head and body together: apart, the body waits 40 ms for the client's delayed ACK

    def do_GET(self) -> None:
        try:
            answer = cut(find(self.server.root, self.path), self.headers.get("Range", ""))
        except Refusal as refusal:
            answer = refusal.answer
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests speak through their asserts."""
