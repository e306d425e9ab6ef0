"""Settings that all text formats share."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import AfterValidator


def _text_encoding(name: str) -> str:
    try:
        "".encode(name)
        codecs.getincrementaldecoder(name)
    except (LookupError, UnicodeError, ValueError):
        raise ValueError("must be a text encoding, such as utf-8, latin-1, cp1252 or utf-16") from None
    return name


Encoding = Annotated[str, AfterValidator(_text_encoding)]
"""One of Python's text encodings."""
