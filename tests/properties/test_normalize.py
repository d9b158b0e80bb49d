"""Normalizing whatever parses: only RefusedError, the same twice, nothing empty, deleted or invented in any value."""

from collections.abc import Iterator

import msgspec
import orjson
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.fixtures.adt import received, source
from tests.fixtures.sources import unfounded
from tocengine.errors import RefusedError
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.schema import validator
from tocengine.model.message import Problem
from tocengine.normalize.normalizer import HL7v2Normalizer

NORMALIZER = HL7v2Normalizer(source())
SCHEMA = validator()
ENCODER = msgspec.json.Encoder()

values = st.one_of(
    st.sampled_from(
        [
            "",
            '""',
            " ",
            "E",
            "I",
            "03",
            "3",
            "30",
            "999",
            "HHS",
            "20260301",
            "20260308023000",
            "20261101013000",
            "1234567893",
            "9999999999",
            "NPI",
            "MR",
            "SS",
            "A & B",
            "\\F\\",
            "\\X00\\",
            "\\X2222\\",
            ' ""',
            "UNKNOWN",
            "29463-7",
            "NM",
            "SN",
            "HL70230",
            "LN",
            "UPDATE",
            "90",
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="|\r\n"), max_size=8),
)
components = st.lists(values, min_size=1, max_size=10).map("^".join)
fields = st.lists(components, min_size=1, max_size=2).map("~".join)


def _segment(name: str, size: int) -> st.SearchStrategy[list[str]]:
    """A segment split at its fields, some of which say anything: field N is item N."""
    said = st.dictionaries(st.integers(1, size), fields, max_size=8)
    return said.map(lambda found: [name, *(found.get(number, "") for number in range(1, max(found, default=0) + 1))])


TRIGGERS = "A01 A03 A04 A06 A08 A11 A13 A17 A20 A28 A31 A40 A60 A99 Z99".split()
OTHERS = "PD1 PV2 ROL PRT DG1 AL1 IAM IN1 NK1 MRG PR1 OBX ZBE ARV CON ZZZ".split()


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """ADT messages with a patient and a visit, and anything in all other fields."""
    pid = draw(_segment("PID", 30))
    pid += [""] * (4 - len(pid))
    pid[3] = draw(st.sampled_from(["77^^^STJ^MR", pid[3]]))
    pv1 = draw(_segment("PV1", 50))
    pv1 += [""] * (20 - len(pv1))
    pv1[19] = draw(st.sampled_from(["V1^^^STJ", pv1[19]]))
    others = [draw(_segment(name, 25)) for name in draw(st.lists(st.sampled_from(OTHERS), max_size=5))]
    weight = f"OBX|1|{draw(values)}|29463-7^{draw(values)}^LN||{draw(fields)}|{draw(fields)}|||||{draw(values)}"
    head = f"MSH|^~\\&|A|STJ|C|D|{draw(values)}||ADT^{draw(st.sampled_from(TRIGGERS))}|1|P|2.5.1"
    segments = ["|".join(each) for each in (draw(_segment("EVN", 7)), pid, pv1, *others)]
    return "\r".join([head, *segments, weight, ""]).encode()


def _strings(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    else:
        yield value


def assert_names_a_place(problem: Problem) -> None:
    assert problem.reason
    assert problem.location


@settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,  # shrinking such a message takes minutes
    suppress_health_check=[HealthCheck.too_slow],  # it is large, and a busy machine draws it slowly
)
@given(messages())
@example(
    "MSH|^~\\&|A|STJ|||||ADT^A01|1|P|2.5.1\rPID|||7^^^STJ^MR\rPV1||\u00c7\ufeff \u00d8|||||||||||||||||V1\r".encode()
)
def test_anything_that_parses_is_normalized_or_refused_and_comes_out_valid(body: bytes) -> None:
    message = received(body)
    try:
        records = NORMALIZER.normalize(message)
    except RefusedError as error:
        assert_names_a_place(error.problem)
        return
    again = NORMALIZER.normalize(message)
    assert [ENCODER.encode(each) for each in records] == [ENCODER.encode(each) for each in again]
    for record in records:
        bundle = orjson.loads(bytes(record.fhir))
        assert all(value is not None and value not in ("", '""') for value in _strings(bundle))
        assert unfounded(bundle, body) == []
        assert check_bundle(bundle) == []
        assert [error.message for error in SCHEMA.iter_errors(bundle)] == []
