"""The data types, from fields as they are sent."""

from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.datatypes import CWE, CX, DLD, HD, PL, TS, XAD, XCN, XON, XPN, XTN


def field(raw: str) -> hl7v2.Field:
    return hl7v2.parse(f"MSH|^~\\&|\rZZZ|{raw}\r".encode()).segment("ZZZ")[1]


def test_identifiers() -> None:
    assert [CX.read(each) for each in field(" 007 ^^^NORTH&1.2.3&ISO^MR~9\\T\\1^^^USSSA^SS")] == [
        CX("007", authority=HD("NORTH", "1.2.3", "ISO"), type="MR"),
        CX("9&1", authority=HD("USSSA"), type="SS"),
    ]
    assert CX.read(field("")) == CX()
    assert not HD.read(field(""))
    assert HD.read(field("NORTH^1999000023^NPI")) == HD("NORTH", "1999000023", "NPI")


def test_people() -> None:
    assert XPN.read(field("VAN DER ZEE&VAN DER&ZEE^ADA^M^JR^^^L")) == XPN("VAN DER ZEE", "ADA", "M", "JR", type="L")
    assert XCN.read(field("1234567893^LIND^OLA^B^III^DR^MD^^NPI^L^^^NPI^NORTH&7&L")) == XCN(
        "1234567893",
        "LIND",
        "OLA",
        "B",
        "III",
        "DR",
        "MD",
        authority=HD("NPI"),
        name_type="L",
        type="NPI",
        facility=HD("NORTH", "7", "L"),
    )
    assert XON.read(field("HILL CLINIC^^^^^NPI^^^^1999000049")).value == "1999000049"
    assert XON.read(field("HILL CLINIC^L^123")) == XON("HILL CLINIC", "L", "123")


def test_places_and_contacts() -> None:
    assert XAD.read(field("1 OAK RD&OAK RD&1^^TROY^NY^12180^USA^H^^RENSS")) == XAD(
        "1 OAK RD", "", "TROY", "NY", "12180", "USA", "H", county="RENSS"
    )
    assert XTN.read(field("^PRN^PH^^1^518^5550100")).local_number == "5550100"
    assert XTN.read(field("(518)555-0100")).number == "(518)555-0100"
    assert XTN.read(field("^NET^Internet^a@example.org^^^^^^^^x")).unformatted == "x"
    assert PL.read(field("4W&1&L^212^A^NORTH&1.2&ISO^^^^^West wing")) == PL(
        "4W", "212", "A", HD("NORTH", "1.2", "ISO"), description="West wing"
    )
    assert DLD.read(field("A & B HOME^20260301")) == DLD("A & B HOME", "20260301")


def test_codes_and_times() -> None:
    assert CWE.read(field("I50.9^Heart failure^I10^428^CHF^I9^^^as told")) == CWE(
        "I50.9", "Heart failure", "I10", "428", "CHF", "I9", "as told"
    )
    assert CWE.read(field("^^^^other")).label == "other"
    assert TS.read(field("20260301120000-0500^D")).stated == "20260301"
    assert TS.read(field("20260301120059-0500^M")).stated == "202603011200-0500"
    assert TS.read(field("20260301120059")).stated == "20260301120059"
