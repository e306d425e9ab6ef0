"""What a driver and its worker processes tell each other: one JSON object per line, over two pipes.

======================  =================================================================================
to the worker           means
======================  =================================================================================
``{"setup": …}``        the first line: the project file, what all scans of the attempt share
``{"scan": 3}``         execute this scan; the next one comes when it has ended
``{"stop": error}``     checkpoint and stop, because of this error
``{"end": true}``       end when there is no scan left to execute
(the pipe ends)         the driver is gone: end at once
======================  =================================================================================

======================  =================================================================================
from the worker         means
======================  =================================================================================
``{"log": …}``          a line of the log: ``level`` and ``text``
``{"ended": …}``        the scan has ended: ``profile``, and the ``error`` that ended it or ``null``;
                        ``stopped`` tells whether it stopped because it was to
======================  =================================================================================

No line holds a secret: settings are not sent, every worker loads the project file by itself.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ecmbatch.engine.failures import error_document
from ecmbatch.errors import EcmbatchError, Problem

Message = Mapping[str, Any]
Redact = Callable[[str], str]


class Outbox:
    """The writing end of a pipe, for several threads. Who reads no more is gone, which is told elsewhere."""

    def __init__(self, descriptor: int) -> None:
        self._lock = threading.Lock()
        self._pipe = os.fdopen(descriptor, "wb")

    def send(self, message: Message) -> None:
        """Write *message*, waiting for room in the pipe if need be."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock, suppress(BrokenPipeError):
            if not self._pipe.closed:
                self._pipe.write(line)
                self._pipe.flush()

    def close(self) -> None:
        """Close the pipe."""
        with self._lock, suppress(BrokenPipeError):
            self._pipe.close()


def encode_error(error: BaseException, redact: Redact) -> Message:
    """Return the JSON form of *error*; of one that is not ours, no more than its type and its trace."""
    document: dict[str, Any] = {"trace": redact("".join(traceback.format_exception(error)))}
    if isinstance(error, EcmbatchError):
        document |= {name: _redacted(value, redact) for name, value in error_document(error).items()}
        # A plug-in may raise a class of its own: whoever does not know it takes what it is derived from.
        document["code"] = [each.code for each in type(error).__mro__ if issubclass(each, EcmbatchError)]
        document["error_class"] = error.error_class
    else:
        document["type"] = type(error).__name__
    return document


def decode_error(document: Message) -> Exception:
    """Return an error like the one whose JSON form is *document*; its trace is a note on it."""
    if "type" in document:
        # People are told the type's name and nothing else.
        error: Exception = type(document["type"], (Exception,), {})()
    else:
        error = _known_error(document)
    error.add_note(document["trace"])
    return error


def decode_known_error(document: Message) -> EcmbatchError:
    """Return the error whose JSON form is *document*, which is one of ours."""
    error = decode_error(document)
    assert isinstance(error, EcmbatchError)
    return error


def _known_error(document: Message) -> EcmbatchError:
    classes = {each.code: each for each in reversed(list(_classes()))}
    kind = next(classes[code] for code in document["code"] if code in classes)
    # Some constructors ask for more than an error needs to be told.
    error = kind.__new__(kind)
    EcmbatchError.__init__(
        error,
        document["message"],
        problems=[Problem(**problem) for problem in document["problems"]],
        hint=document.get("hint"),
        error_class=document["error_class"],
    )
    return error


def _classes() -> Iterator[type[EcmbatchError]]:
    """Yield all classes of errors, each before those that are derived from it."""
    waiting: deque[type[EcmbatchError]] = deque([EcmbatchError])
    while waiting:
        kind = waiting.popleft()
        yield kind
        waiting.extend(kind.__subclasses__())


def _redacted(value: Any, redact: Redact) -> Any:
    match value:
        case str():
            return redact(value)
        case list():
            return [_redacted(each, redact) for each in value]
        case dict():
            return {name: _redacted(each, redact) for name, each in value.items()}
    return value
