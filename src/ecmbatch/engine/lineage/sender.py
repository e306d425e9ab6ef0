"""Sending events without making a run wait: in a thread of their own, in their order, if somebody listens."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlineage.client.client import Event, OpenLineageClient

log = logging.getLogger("ecmbatch")

_CONSOLE = "openlineage.client.transport.console"


class Sender:
    """Sends events by *transport*, a configuration of OpenLineage's client, which is imported by the first one.

    Whatever goes wrong is told once, in :meth:`close`, by its kind: messages of a transport may hold secrets.
    """

    def __init__(self, transport: Mapping[str, Any], *, patience: float) -> None:
        self._transport = transport
        self._patience = patience
        self._events: queue.SimpleQueue[Callable[[], Event] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._sent = 0
        self._delivered = 0
        self._problem: str | None = None

    def send(self, event: Callable[[], Event]) -> None:
        """Send what *event* returns, some time soon; it is called in another thread."""
        if self._thread is None:
            # A daemon: a transport that hangs must not keep the process.
            self._thread = threading.Thread(target=self._work, name="ecmbatch-openlineage", daemon=True)
            self._thread.start()
        self._sent += 1
        self._events.put(event)

    def failed(self, error: Exception) -> None:
        """Note that an event could not be made."""
        self._sent += 1
        self._problem = _kind_of(error)

    def close(self) -> None:
        """Wait for what is under way, no longer than the patience, and tell if something was not delivered."""
        if self._thread is not None:
            self._events.put(None)
            self._thread.join(self._patience)
            if self._thread.is_alive():
                self._problem = self._problem or f"no answer within {self._patience:g} s"
        if self._problem is not None:
            log.warning(
                "%d of %d OpenLineage events were not delivered (%s); the run is not affected",
                self._sent - self._delivered,
                self._sent,
                self._problem,
            )

    def _work(self) -> None:
        try:
            client = connect(self._transport)
        except Exception as error:
            self._problem = _kind_of(error)
            return
        while (event := self._events.get()) is not None:
            try:
                client.emit(event())
                self._delivered += 1
            except Exception as error:
                self._problem = _kind_of(error)
        try:
            client.close(self._patience)
        except Exception as error:
            self._problem = _kind_of(error)


def connect(transport: Mapping[str, Any]) -> OpenLineageClient:
    """Return OpenLineage's client with *transport*."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport import get_default_factory

    # Its errors may repeat what is sent and to whom; ours are told instead.
    _listen("openlineage", logging.NullHandler())
    if transport["type"] == "console":
        logging.getLogger(_CONSOLE).setLevel(logging.INFO)
        _listen(_CONSOLE, _OurLog())
    return OpenLineageClient(transport=get_default_factory().create(dict(transport)))


class _OurLog(logging.Handler):
    """Writes the events of the console transport to our own log, where secrets are taken out."""

    def emit(self, record: logging.LogRecord) -> None:
        log.info("%s", record.getMessage())


def _listen(logger: str, handler: logging.Handler) -> None:
    """Let *handler* hear a logger, once, and nobody else who would only hear it for want of one."""
    handlers = logging.getLogger(logger).handlers
    if not any(type(each) is type(handler) for each in handlers):
        handlers.append(handler)


def _kind_of(error: Exception) -> str:
    """Return what went wrong, without the words of *error*."""
    if isinstance(error, ImportError) and (error.name or "").startswith("openlineage"):
        return "its client is not installed: pip install 'ecmbatch[openlineage]'"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status is not None else type(error).__name__
