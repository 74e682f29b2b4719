"""arena.py in a process of its own, and people who vote in it as their browsers do."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

from faults.harness import ROOT, free_port


@contextmanager
def served(*arguments: object, port: int | None = None, **environment: str) -> Iterator[tuple[str, Any]]:
    """An arena in its own process; its address and the process."""
    if port is None:
        port = free_port()
    command = [sys.executable, "arena.py", *map(str, arguments), "--port", str(port)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=surroundings, text=True, cwd=ROOT
    ) as server:
        try:
            assert server.stdout is not None
            said = []
            for line in server.stdout:
                said.append(line)
                if "http://" in line:
                    break
            assert server.poll() is None, "".join(said)
            yield f"http://127.0.0.1:{port}", server
        finally:
            server.kill()


class Voter:
    """Speaks to the page's own routes; every call raises OSError once the server is gone."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.session = url, uuid.uuid4().hex
        with urlopen(f"{url}/config", timeout=60) as reply:
            page = json.load(reply)
        ids = {component["id"]: component["props"].get("elem_id") for component in page["components"]}
        self.numbers = {
            ids.get(target): number
            for number, event in enumerate(page["dependencies"])
            for target, _ in event["targets"]
        }
        self.press("enter", name)

    def press(self, button: str, *given: Any) -> dict[str, Any]:
        """What the page is told in the end; `given` are the values of what the button reads."""
        body = {"fn_index": self.numbers[button], "data": given, "session_hash": self.session}
        request = Request(
            f"{self.url}/gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urlopen(request, timeout=60).close()
        with urlopen(f"{self.url}/gradio_api/queue/data?session_hash={self.session}", timeout=60) as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    message: dict[str, Any] = json.loads(line[5:])
                    if message["msg"] == "process_completed":
                        return message
        raise ConnectionError("the server went away")

    def vote(self) -> bool:
        """On the next pair; whether the page then told the names."""
        self.press("next", None)
        told = self.press("vote-left", None, None, "")
        return bool(told["success"]) and "B was" in json.dumps(told["output"])
