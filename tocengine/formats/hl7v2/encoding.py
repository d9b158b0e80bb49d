"""Owns how HL7 v2 text is encoded: delimiters (MSH-1, MSH-2), escape sequences, and character sets (MSH-18)."""

import re
from functools import lru_cache
from typing import Final

import msgspec

from tocengine.errors import SyntaxRefusedError
from tocengine.model.message import Problem

STANDARD_CHARACTERS: Final = "^~\\&"
FALLBACK_CHARSET: Final = "cp1252"


class Flag:
    """What was odd about a message's encoding, though it was read all the same."""

    CHARSET_UNKNOWN: Final = "charset_unknown"
    CHARSET_MISMATCH: Final = "charset_mismatch"
    REPLACED_CHARACTERS: Final = "replaced_characters"
    DELIMITERS_MISSING: Final = "delimiters_missing"


def refuse(reason: str, text: str, location: str = "MSH", code: str = "100") -> SyntaxRefusedError:
    """The one error of this package: the bytes are not an HL7 v2 message. `code` is of table 0357."""
    return SyntaxRefusedError(Problem(reason=reason, text=text, location=location, code=code, stage="syntax"))


class Delimiters(msgspec.Struct, frozen=True):
    """The separators a message announces in MSH-1 and MSH-2; an empty one is not in use.

    HL7 v2.5.1 section 2.5.4; the truncation character came with v2.7 (section 2.5.5.2).
    """

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""

    @property
    def characters(self) -> str:
        """MSH-2 as it is written."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


STANDARD: Final = Delimiters()


@lru_cache(maxsize=256)
def read_delimiters(field: str, characters: str) -> Delimiters:
    """The delimiters that MSH-1 `field` and MSH-2 `characters` announce.

    Anything behind the fifth character is ignored, and so is a fifth one that is a letter or digit (some
    senders write ``^~\\&amp;``). An empty MSH-2 means the standard characters. Raises SyntaxRefusedError where a
    delimiter is a letter, digit, blank or control character, or two are the same.
    """
    characters = characters or STANDARD_CHARACTERS
    used = field + characters[:4]
    if len(characters) > 4 and not characters[4].isalnum() and characters[4] not in used:
        used += characters[4]
    if len(set(used)) != len(used) or any(each.isalnum() or each.isspace() or not each.isprintable() for each in used):
        raise refuse("delimiters", "MSH-1 and MSH-2 do not name distinct delimiters", "MSH^1^2")
    padded = [*used, *[""] * (6 - len(used))]
    return Delimiters(*padded)


# --- escape sequences (HL7 v2.5.1 section 2.7) -------------------------------------------------------------

_NEW_LINES = ("br", "sp", "ce")


@lru_cache(maxsize=64)
def _escape_pattern(escape: str) -> re.Pattern[str]:
    mark = re.escape(escape)
    return re.compile(f"{mark}([A-Za-z][0-9A-Za-z]*|\\.[A-Za-z]{{2}}[+-]?[0-9]*){mark}")


def unescape(text: str, delimiters: Delimiters, charset: str = "utf-8") -> str:
    """`text` with its escape sequences resolved.

    Highlighting (``\\H\\ \\N\\``), character set switches (``\\C..\\ \\M..\\``) and layout commands other than line
    breaks carry no text and vanish; local (``\\Z..\\``) and unknown sequences, and a lone escape character,
    stay as they are. `charset` is a Python codec: what the bytes of ``\\Xhh..\\`` are in.
    """
    escape = delimiters.escape
    if not escape or escape not in text:
        return text

    def resolved(match: re.Match[str]) -> str:
        replaced = _resolve(match.group(1), delimiters, charset)
        return match.group() if replaced is None else replaced

    return _escape_pattern(escape).sub(resolved, text)


def _resolve(code: str, delimiters: Delimiters, charset: str) -> str | None:
    match code:
        case "F":
            return delimiters.field
        case "S":
            return delimiters.component
        case "T":
            return delimiters.subcomponent or "&"
        case "R":
            return delimiters.repetition
        case "E":
            return delimiters.escape
        case "P":
            return delimiters.truncation or "#"
        case "H" | "N":
            return ""
    if code[0] == ".":
        return _layout(code[1:])
    digits = code[1:]
    if code[0] in "Xx":
        try:
            return bytes.fromhex(digits).decode(charset, "replace") if digits else None
        except ValueError:
            return None
    if code[0] in "CM" and len(digits) in (4, 6) and all(each in "0123456789ABCDEFabcdef" for each in digits):
        return ""
    return None


def _layout(command: str) -> str | None:
    name, amount = command[:2].lower(), command[2:].lstrip("+-")
    if name in _NEW_LINES:
        return "\n" * min(int(amount or 1), 100) or "\n"
    if name == "sk":
        return " " * min(int(amount or 1), 100)
    return "" if name in ("in", "ti", "fi", "nf") else None


def escape(text: str, delimiters: Delimiters) -> str:
    """`text` written so that it is data: delimiters escaped, line ends as ``\\X0D\\`` and ``\\X0A\\``.

    Where the message uses no escape character, what would be a delimiter becomes a blank.
    """
    mark = delimiters.escape
    replacements = {
        ord(character): f"{mark}{code}{mark}" if mark else " "
        for character, code in (
            (delimiters.field, "F"),
            (delimiters.component, "S"),
            (delimiters.subcomponent, "T"),
            (delimiters.repetition, "R"),
            (mark, "E"),
            (delimiters.truncation, "P"),
            ("\r", "X0D"),
            ("\n", "X0A"),
        )
        if character
    }
    return text.translate(replacements)


# --- character sets (MSH-18, HL7 table 0211) ---------------------------------------------------------------

_CODECS: Final = {
    "ASCII": "ascii",
    "USASCII": "ascii",
    "ISOIR6": "ascii",
    "UNICODE": "utf-8",  # deprecated; on one-byte framing it can only mean UTF-8
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
    "UTF8MB4": "utf-8",
    "AL32UTF8": "utf-8",
    "ISOIR192": "utf-8",
    "CP1252": "cp1252",
    "WINDOWS1252": "cp1252",
    "ANSI": "cp1252",
    "LATIN1": "cp1252",
    "WE8ISO8859P1": "cp1252",
    "WE8MSWIN1252": "cp1252",
    "ISOIR100": "cp1252",
    "ISOIR14": "iso2022_jp_ext",
    "ISOIR87": "iso2022_jp_ext",
    "ISOIR159": "iso2022_jp_ext",
    "SHIFTJIS": "cp932",
    "GB180302000": "gb18030",
    "GB18030": "gb18030",
    "KSX1001": "cp949",
    "BIG5": "big5hkscs",
}
_LATIN_PARTS: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)
for _part in _LATIN_PARTS:
    for _name in (f"8859{_part}", f"ISO8859{_part}"):
        _CODECS[_name] = f"iso8859_{_part}"
for _name in ("88591", "ISO88591", "88591CP1252"):
    _CODECS[_name] = "cp1252"
_WIDE: Final = ("UTF16", "UTF32", "UCS2", "UCS4")


@lru_cache(maxsize=256)
def codec_for(announced: str) -> str | None:
    """The Python codec for an MSH-18 value, look-alikes included; None where nobody can say.

    Raises SyntaxRefusedError for UTF-16 and UTF-32, whose bytes cannot be told from framing.
    """
    name = "".join(each for each in announced.upper() if each.isascii() and each.isalnum())
    if any(wide in name for wide in _WIDE):
        raise refuse("charset_unframeable", "UTF-16 and UTF-32 cannot be framed by MLLP", "MSH^1^18", "102")
    return _CODECS.get(name)


class Decoded(msgspec.Struct, frozen=True):
    """A message as text, the codec that read it, and what was odd."""

    text: str
    codec: str
    flags: tuple[str, ...] = ()


def decode(body: bytes, announced: bytes, default: str = "") -> Decoded:
    """`body` as text by its MSH-18 (`announced`, all repetitions), or `default` where that is empty.

    Never fails on bytes: a wrong announcement is flagged, and what no codec reads becomes U+FFFD, flagged too.
    UTF-8 under the name of 8859/1 is told by its form, which western text does not have by chance.
    Raises SyntaxRefusedError for an announced UTF-16 or UTF-32.
    """
    if not announced and not default:
        return _guess(body)
    names = announced.decode("ascii", "replace").strip() or default
    first, *others = names.split("~")
    codec = codec_for(first)
    if others and b"\x1b" in body:  # ISO 2022: further sets are switched to by escape sequences
        codec = next((each for each in map(codec_for, others) if each == "iso2022_jp_ext"), codec)
    if codec is None:
        guessed = _guess(body)
        return Decoded(guessed.text, guessed.codec, (Flag.CHARSET_UNKNOWN, *guessed.flags)) if first else guessed
    try:
        if codec == FALLBACK_CHARSET and not body.isascii():  # it reads nearly any bytes, so it is asked last
            return Decoded(body.decode("utf-8"), "utf-8", (Flag.CHARSET_MISMATCH,))
        return Decoded(body.decode(codec), codec)
    except UnicodeDecodeError:
        return _mismatched(body, codec)


def _guess(body: bytes) -> Decoded:
    try:
        return Decoded(body.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return _western(body, ())


def _western(body: bytes, flags: tuple[str, ...]) -> Decoded:
    try:
        return Decoded(body.decode(FALLBACK_CHARSET), FALLBACK_CHARSET, flags)
    except UnicodeDecodeError:  # the five bytes cp1252 leaves open are control characters in 8859/1
        return Decoded(body.decode("latin-1"), "latin-1", flags)


def _mismatched(body: bytes, codec: str) -> Decoded:
    """Bytes that are not what MSH-18 says. Eight-bit text under a wrong name is read as what it is."""
    if codec == FALLBACK_CHARSET:
        return _western(body, ())
    if codec == "ascii":
        guessed = _guess(body)
        return Decoded(guessed.text, guessed.codec, (Flag.CHARSET_MISMATCH, *guessed.flags))
    text = body.decode(codec, "replace")
    if codec == "utf-8" and text.replace("\ufffd", "").isascii():
        return _western(body, (Flag.CHARSET_MISMATCH,))
    return Decoded(text, codec, (Flag.CHARSET_MISMATCH, Flag.REPLACED_CHARACTERS))
