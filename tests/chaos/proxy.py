"""A way to a PostgreSQL server on which a commit can get lost or be late."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from typing import Literal, Self

Fault = Literal["acknowledgement lost", "commit late"]

_PUBLISHES = re.compile(rb"INSERT INTO [^;]*_ecmbatch_publications")
_COMMIT = re.compile(rb"\bCOMMIT\b")


class Proxy:
    """Passes everything on, until a session that publishes commits; then the *fault* happens, once.

    With ``acknowledgement lost`` the commit reaches the server and its answer nobody. With ``commit late`` the
    session's client is cut off and the commit waits for :meth:`release`.
    """

    def __init__(self, port: int, fault: Fault) -> None:
        self._target = port
        self._fault: Fault | None = fault
        self._held: Callable[[], None] | None = None
        self.happened = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def release(self) -> None:
        """Let the commit that is late reach the server; return when it was answered."""
        assert self._held is not None
        self._held()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._upwards, args=(client, server), daemon=True).start()
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        publishes = False
        while data := _received(client):
            publishes = publishes or _PUBLISHES.search(data) is not None
            if publishes and self._fault and _COMMIT.search(data):
                fault, self._fault = self._fault, None
                # From here on nothing the server says gets to the client.
                _cut(client)

                def commit(data: bytes = data) -> None:
                    server.sendall(data)
                    _wait_for_end_of(server)

                if fault == "commit late":
                    self._held = commit
                else:
                    commit()
                self.happened.set()
                return
            try:
                server.sendall(data)
            except OSError:
                break
        _cut(server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    while data := _received(source):
        try:
            target.sendall(data)
        except OSError:
            # Somebody cut the way; what the server says now nobody hears, but it is said.
            continue
    _cut(target)


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65_536)
    except OSError:
        return b""


def _cut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It was cut before.
        return


def _wait_for_end_of(server: socket.socket) -> None:
    """Ask the server to end the session after what it was sent, and wait until it has."""
    server.sendall(b"X\x00\x00\x00\x04")
    while _received(server):
        pass
