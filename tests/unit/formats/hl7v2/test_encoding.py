"""Escape sequences and character sets."""

import pytest

from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.encoding import STANDARD, codec_for, decode, unescape


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\P\\g", "a|b^c&d~e\\f#g"),
        ("one\\.br\\two\\.sp2\\three", "one\ntwo\n\nthree"),
        ("\\H\\bold\\N\\ plain", "bold plain"),
        ("\\X0D0A\\x\\X41\\", "\r\nxA"),
        ("\\XC3A9\\", "é"),
        ("\\C2842\\a\\M244200\\b", "ab"),
        ("\\Zlocal\\ and \\Q7\\ stay", "\\Zlocal\\ and \\Q7\\ stay"),
        ("\\XZZ\\ \\X4\\", "\\XZZ\\ \\X4\\"),
        ("C:\\dir lone \\", "C:\\dir lone \\"),
        ("\\.in+3\\indented\\.sk3\\x", "indented   x"),
        ("plain", "plain"),
    ],
)
def test_unescape(escaped: str, text: str) -> None:
    assert unescape(escaped, STANDARD) == text


@pytest.mark.parametrize(
    ("announced", "codec"),
    [
        ("ASCII", "ascii"),
        ("8859/1", "cp1252"),
        ("ISO-8859-1", "cp1252"),
        ("WE8ISO8859P1", "cp1252"),
        ("8859/2", "iso8859_2"),
        ("8859/15", "iso8859_15"),
        ("UNICODE UTF-8", "utf-8"),
        ("UTF-8", "utf-8"),
        ("unicode", "utf-8"),
        ("GB 18030-2000", "gb18030"),
        ("KLINGON", None),
    ],
)
def test_codecs(announced: str, codec: str | None) -> None:
    assert codec_for(announced) == codec


def _name(raw: bytes, announced: bytes) -> tuple[str, tuple[str, ...]]:
    body = b"MSH|^~\\&|||||||ADT^A01|1|P|2.5||||||" + announced + b"\rPID|||||" + raw + b"\r"
    message = hl7v2.parse(body)
    assert message.to_bytes() == body
    return message.get("PID-5.1"), message.flags


def test_an_empty_charset_is_utf_8_else_western() -> None:
    assert _name(b"PE\xd1A", b"") == ("PEÑA", ())
    assert _name("PEÑA".encode(), b"") == ("PEÑA", ())
    assert _name(b"a\x81\x93", b"") == ("a\x81\x93", ())


def test_a_wrong_charset_is_flagged_and_read_all_the_same() -> None:
    assert _name(b"PE\xd1A", b"UNICODE UTF-8") == ("PEÑA", ("charset_mismatch",))
    assert _name("PEÑA".encode(), b"ASCII") == ("PEÑA", ("charset_mismatch",))
    assert _name("PEÑA".encode(), b"8859/1") == ("PEÑA", ("charset_mismatch",))
    assert _name("PEÑA Ñ".encode("cp1252"), b"8859/1") == ("PEÑA Ñ", ())
    mixed = "Ñ".encode() + b"\xd1"
    assert _name(mixed, b"UTF-8") == ("Ñ\ufffd", ("charset_mismatch", "replaced_characters"))
    assert _name(b"\xd1", b"KLINGON") == ("Ñ", ("charset_unknown",))


def test_iso_2022_by_further_repetitions() -> None:
    raw = "山田".encode("iso2022_jp")
    assert _name(raw, b"ASCII~ISO IR87") == ("山田", ())
    assert _name(raw, b"~ISO IR87") == ("山田", ())


def test_the_default_of_the_feed_counts_only_where_nothing_is_announced() -> None:
    assert decode(b"\xb1", b"", "8859/2").text == "ą"
    assert decode(b"\xb1", b"8859/1", "8859/2").text == "±"
