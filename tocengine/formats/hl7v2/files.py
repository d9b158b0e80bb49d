"""Owns which messages a file holds: framed as on a connection, one after the other, or one batch. Pure."""

import re
from itertools import pairwise
from typing import Final

from tocengine.formats.hl7v2.batch import is_batch

_START, _END = b"\x0b", b"\x1c"
_HEADER: Final = re.compile(rb"(?:(?<=[\r\n])|\A)(?:\xef\xbb\xbf)?MSH[!-/:-@\[-`{-~]")


def messages_in(raw: bytes) -> list[bytes]:
    """What is to be taken as one each: a frame, a whole batch, or a message up to the next MSH segment.

    What stands before the first header is no message. Empty where there is none at all.
    """
    if _START in raw:
        return [framed.partition(_END)[0] for framed in raw.split(_START)[1:]]
    if is_batch(raw):
        return [raw]
    starts = [match.start() for match in _HEADER.finditer(raw)]
    return [raw[start:end] for start, end in pairwise([*starts, len(raw)])]
