"""A server on loopback that misbehaves on demand, as no real registry can be told to.

Each test gives it one function that answers requests; every request is recorded.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rootless.images.manifest import Descriptor


@dataclass
class Request:
    method: str
    path: str  # with its query
    headers: dict[str, str]  # names in lower case
    body: bytes
    count: int  # how often this path was asked for, this time included
    _handler: http.server.BaseHTTPRequestHandler = field(repr=False)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole response; ``content_range="x"`` is the header Content-Range."""
        self.begin(status, len(body), **headers)
        self.send(body)

    def begin(self, status: int, length: int, **headers: str) -> None:
        """Send a status and headers that announce ``length`` bytes."""
        self._handler.send_response(status)
        for name, value in {"content_length": str(length), **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        self._handler.wfile.write(data)

    def hang_up(self) -> None:
        """Break the connection after what was sent."""
        self._handler.wfile.flush()
        self._handler.close_connection = True

    def serve(self, data: bytes) -> None:
        """Answer with ``data`` or the range of it that is asked for, as a good registry."""
        wanted = self.headers.get("range")
        if wanted is None:
            return self.answer(200, data)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.answer(206, data[start:], content_range=content_range)


@dataclass
class Fake:
    host: str
    requests: list[Request] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


@contextlib.contextmanager
def serve(behaviour: Callable[[Request], None], certificate: str | None = None) -> Iterator[Fake]:
    """Serve on a free port; over TLS if there is a file with a key and a certificate."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                count = fake.paths().count(self.path) + 1
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                request = Request(self.command, self.path, headers, body, count, self)
                fake.requests.append(request)
            behaviour(request)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what some tests are about."""

    lock = threading.Lock()
    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake is the handler's thread's: a client without TLS must not stop the others.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    fake = Fake(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor(media_type, digest(data), len(data))
