"""Owns the form in which large bodies lie in the database: what `pack` wrote, `unpack` returns byte for byte, forever.

FHIR and HL7 repeat themselves from message to message more than within one. Zstandard with a dictionary of invented
examples makes 10 KB of FHIR into less than 1 KB for 15 microseconds; PostgreSQL, the sockets and the WAL then move a
tenth. The first byte says how the rest was made, so that other dictionaries can follow: 0 as it is, 1 with `1.dict`.
Not for use by two threads at a time (zstandard.ZstdCompressor).
"""

from importlib import resources
from typing import Final

import zstandard

_PLAIN: Final = b"\x00"
_ZSTD_1: Final = b"\x01"
_LEVEL: Final = -3  # a third more bytes than level 1 for half its time
_SMALL: Final = 64  # bytes below which there is nothing to gain

_dictionary = zstandard.ZstdCompressionDict(
    resources.files(__package__).joinpath("1.dict").read_bytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
)
_dictionary.precompute_compress(level=_LEVEL)
_compress = zstandard.ZstdCompressor(level=_LEVEL, dict_data=_dictionary, write_checksum=False).compress
_decompress = zstandard.ZstdDecompressor(dict_data=_dictionary).decompress


def pack(body: bytes) -> bytes:
    """`body` in its stored form; never more than one byte longer."""
    if len(body) >= _SMALL:
        packed = _compress(body)
        if len(packed) < len(body):
            return _ZSTD_1 + packed
    return _PLAIN + body


def unpack(stored: bytes) -> bytes:
    """What was packed. Raises ValueError for what `pack` did not write."""
    form = stored[:1]
    if form == _PLAIN:
        return stored[1:]
    if form != _ZSTD_1:
        raise ValueError("a stored body of an unknown form")
    try:
        return _decompress(memoryview(stored)[1:])
    except zstandard.ZstdError as error:
        raise ValueError("a stored body that was changed") from error
