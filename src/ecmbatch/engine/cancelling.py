"""Ending the wait for a source that gives nothing, when an attempt is to stop.

Whoever is to stop looks at that between batches. A source may not give any for hours: a table is locked, a query
sorts. So a thread looks as well, and after a while tells the connector to let go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ecmbatch.connectors.connector import Connector
from ecmbatch.engine.stopping import StopSignal
from ecmbatch.errors import EcmbatchError

log = logging.getLogger("ecmbatch")

_SECONDS_BETWEEN_LOOKS = 0.5
GRACE_SECONDS = 5.0
"""How long a source has to give the batch that is being waited for before it is told to let go."""


class CancelledWhenStopped:
    """While it is entered, waits for *connector* end some seconds after *stop* was set; *look* may set it.

    An error of ours that comes of that is replaced by the reason to stop.
    """

    def __init__(
        self, stop: StopSignal, connector: Connector, *, look: Callable[[], None] = lambda: None
    ) -> None:
        self._stop = stop
        self._connector = connector
        self._look = look
        self._over = threading.Event()
        self._cancelled = False
        self._thread = threading.Thread(target=self._watch, name="ecmbatch-cancel", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._cancelled and isinstance(error, EcmbatchError):
            raise self._stop.reason from error

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()
            if self._stop.is_set():
                break
        # Again and again: what is waited for next is not known to be over either.
        while not self._over.wait(GRACE_SECONDS):
            self._cancelled = True
            try:
                self._connector.cancel()
            except Exception as error:
                log.warning("the source could not be told to let go: %s", type(error).__name__)
