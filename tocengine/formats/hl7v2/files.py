"""Owns which messages a file holds: framed as on a connection, one after the other, or one batch. Pure."""

import re
from itertools import pairwise
from typing import Final

from tocengine.formats.hl7v2.batch import is_batch
from tocengine.formats.mllp import Broken, BrokenFrame, Frame, FrameReader, Junk

_FRAMED: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?\x0b")
_HEADER: Final = re.compile(rb"(?:(?<=[\r\n])|\A)(?:\xef\xbb\xbf)?MSH[!-/:-@\[-`{-~]")


def messages_in(raw: bytes) -> list[bytes]:
    """What is to be taken as one each: a frame, a whole batch, or a message up to the next MSH segment.

    What stands before the first header is no message. Empty where there is none at all.
    """
    return [piece for piece in pieces_in(raw) if isinstance(piece, bytes) and (is_batch(piece) or _HEADER.match(piece))]


def pieces_in(raw: bytes) -> list[bytes | BrokenFrame]:
    """All that is in a file, in order: what `messages_in` finds, broken frames, and what stands before the first
    header."""
    if _FRAMED.match(raw):
        reader = FrameReader(len(raw) + 1)
        items = reader.receive(raw) + reader.end(Broken.CUT_OFF)
        return [item.payload if isinstance(item, Frame) else item for item in items if not isinstance(item, Junk)]
    if is_batch(raw):
        return [raw]
    starts = [match.start() for match in _HEADER.finditer(raw)]
    before = raw[: starts[0]] if starts else raw
    found: list[bytes | BrokenFrame] = [before] if before.strip() else []
    return found + [raw[start:end] for start, end in pairwise([*starts, len(raw)])]
