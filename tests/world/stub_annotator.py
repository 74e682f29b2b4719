"""An OpenAI-compatible server on the loopback that prefers the answer with a certain word; it knows nothing else."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubJudge(BaseHTTPRequestHandler):
    """Answers AlpacaEval's two prompts, and the one of OpenAI Evals that compares facts."""

    favourite: str
    requests: list[dict[str, Any]]
    silent: bool

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(body)
        text = "\n".join(message["content"] for message in body["messages"])
        reply = "I would rather not say." if self.silent else self.verdict(text)
        message = {"role": "assistant", "content": reply}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        if body.get("logprobs"):
            other = "M" if reply == "m" else "m"
            alternatives = [(reply, math.log(0.9)), (other, math.log(0.1))]
            listed = [{"token": token, "logprob": value, "bytes": None} for token, value in alternatives]
            choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
        usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 1, "total_tokens": len(text) // 4 + 1}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        payload = json.dumps({**answer, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def verdict(self, text: str) -> str:
        if "[Submission]:" in text:  # OpenAI Evals' fact-checking prompt
            submission = text.partition("[Submission]:")[2].partition("*****")[0]
            return "C" if self.favourite in submission else "D"
        if '"model_identifier": "M"' in text:
            return "m" if self.favourite in text.partition('"model_identifier": "M"')[0] else "M"
        best, worst = (1, 2) if self.favourite in text.partition('"model_2"')[0] else (2, 1)
        return str([{"model": f"model_{best}", "rank": 1}, {"model": f"model_{worst}", "rank": 2}])

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def stub_judge(favourite: str, *, silent: bool = False) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its base URL, and the requests it has seen."""
    requests: list[dict[str, Any]] = []
    handler = type("Handler", (StubJudge,), {"favourite": favourite, "requests": requests, "silent": silent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
