"""What a service tells about itself over HTTP: reading only, nothing of what went wrong inside."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ecmbatch.errors import UsageError

log = logging.getLogger("ecmbatch")

_JSON = "application/json; charset=utf-8"
_MOST_CONNECTIONS = 64
_SECONDS_OF_SILENCE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a page answers with."""

    status: HTTPStatus = HTTPStatus.OK
    content_type: str = _JSON
    body: bytes

    @classmethod
    def of(cls, document: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
        """Return the answer that is a JSON document."""
        return cls(status=status, body=json.dumps(document).encode() + b"\n")


Page = Callable[[], Answer]


class HttpServer:
    """Serves *pages*, by path, at *host* and *port* (0: any that is free) in threads of its own.

    Raises :class:`~ecmbatch.errors.UsageError` when it cannot listen there.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        try:
            self._server = _server_class(host)((host, port), _handler_of(pages))
        except OSError as error:
            raise UsageError(
                f"cannot listen at {host}, port {port}: {error.strerror or error}",
                hint="give an address of this machine and a port that is free: --host and --port, or [serve]",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="ecmbatch-http", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        name = f"[{host!s}]" if ":" in str(host) else str(host)
        return f"http://{name}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Lets nobody keep others out: where there are too many connections, the oldest one is closed."""

    daemon_threads = True
    block_on_close = False
    # With five, the default, the kernel drops some of a burst of connections; they come back seconds later.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking for the name of the host, which may take long and is not used."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > _MOST_CONNECTIONS else None
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours."""
        log.debug("a request of %s could not be answered", client_address, exc_info=True)


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _IPv6Server if ":" in host else _Server


def _handler_of(pages: Mapping[str, Page]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS_OF_SILENCE
        server_version = "ecmbatch"
        sys_version = ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                answer = page()
            except Exception:
                log.exception("the page %s could not be made", self.path, extra={"event": "http.failed"})
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
                return
            self._send(answer)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            """Answer with the name of the error alone: nothing of the request, nothing of ours."""
            status = HTTPStatus(code)
            if status is HTTPStatus.NOT_IMPLEMENTED:
                status = HTTPStatus.METHOD_NOT_ALLOWED
            self._send(Answer.of({"error": status.phrase}, status))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET")
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            log.debug("http: %s", format % args)

    return Handler
