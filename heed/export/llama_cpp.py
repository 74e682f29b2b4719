"""llama.cpp's server, on a socket of its own: what it makes of messages, of a text, and what it writes after one."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from heed.errors import UserError
from heed.export.convert import INSTALLED, environment

PROGRAM = "llama-server"
PATIENCE = 600.0  # seconds for a model to be loaded, or for one answer


class Server:
    """Greedy answers of one GGUF file."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Messages in the file's own template, up to where an answer begins."""
        return str(self.ask("apply-template", messages=messages)["prompt"])

    def tokenize(self, text: str) -> list[int]:
        """As it does with a rendered chat: control tokens are such, and a BOS is put where the file asks for one."""
        return list(self.ask("tokenize", content=text, add_special=True, parse_special=True)["tokens"])

    def answer(self, text: str, *, limit: int) -> list[int]:
        """The ids it writes, up to and including the one that stops, or up to `limit`."""
        asked = {"n_predict": limit, "temperature": 0, "cache_prompt": False, "return_tokens": True}
        return list(self.ask("completion", prompt=text, **asked)["tokens"])

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        reply = self.client.post(path, json=body)
        if reply.status_code != httpx.codes.OK:
            raise UserError(f"{PROGRAM} answers {reply.status_code} to {path}: {reply.text.strip()}")
        found: dict[str, Any] = reply.json()
        return found


def command() -> list[str] | None:
    """The server on the PATH, or the one that `make export-setup` has brought."""
    if (found := shutil.which(PROGRAM)) is not None:
        return [found, "--parallel", "1", "--device", "none", "--jinja"]
    brought = [sys.executable, "-P", str(Path(__file__).parent / "llama_server.py")]
    return brought if (INSTALLED / "xllamacpp").is_dir() else None


def version(runtime: Sequence[str]) -> str:
    done = subprocess.run([*runtime, "--version"], env=environment(), capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].removeprefix("version: ") if lines else "of unknown version"


@contextmanager
def serving(runtime: Sequence[str], file: Path, *, context: int) -> Iterator[Server]:
    """The server with `file` loaded, on the CPU. Raises UserError, with its last words, where it does not start."""
    with tempfile.TemporaryDirectory() as folder:
        socket, log = f"{folder}/llama.sock", Path(folder) / "log"
        words = [*runtime, "--model", str(file), "--ctx-size", str(context), "--host", socket]
        words += [
            "--threads",
            str(torch.get_num_threads()),
        ]  # more of them than cores that are free wait for each other
        with log.open("wb") as said:
            process = subprocess.Popen(words, env=environment(), stdout=said, stderr=said)
        transport = httpx.HTTPTransport(uds=socket)
        try:
            with httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE) as client:
                wait(client, process, log, file)
                yield Server(client)
        finally:
            process.terminate()
            process.wait()


def wait(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path, file: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if client.get("health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        if process.poll() is not None or time.monotonic() > until:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
            raise UserError(f"{PROGRAM} did not load {file}: {lines[-1]}")
        time.sleep(0.1)
