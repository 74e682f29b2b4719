"""A server on the loopback that answers a request with whatever bytes a function sends, whenever it sends them."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

Send = Callable[[bytes], None]


class RawServer(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, says: Callable[[Send], None]) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.says = says
        self.requests: list[bytes] = []
        """The head of each."""
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Connection(StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (line := self.rfile.readline()):
                return
            head += line
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self.rfile.read(length)
        self.server.requests.append(head)

        def send(data: bytes) -> None:
            self.request.sendall(data)
            self.server.sent += len(data)

        with suppress(OSError):  # a client that has heard enough
            self.server.says(send)
            self.request.shutdown(socket.SHUT_WR)


@contextmanager
def serve_raw(says: Callable[[Send], None]) -> Iterator[RawServer]:
    server = RawServer(says)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
