"""No value in an event's content is made up: each is the message's, a table's, the configuration's or the engine's."""

from typing import Any

import orjson
import pytest

from tests.fixtures.adt import movement, normalized
from tests.fixtures.sources import unfounded

BODY = movement(
    "A03",
    {4: "E", 10: "MED", 14: "5", 36: "03", 37: "SUNNYSIDE REHAB", 44: "20260226101500-0500", 45: "20260308023000"},
    "PV2|||R07.9^Chest pain^I10",
    "DG1|1||I509^Heart failure^I10|||F",
    "AL1|1|DA|PCN^Penicillin^L|SV|Rash",
    "IN1|1|MCR^Plan A|0001|EVERGREEN HEALTH|||||||||||||SEL",
    "NK1|1|VOSS^PETER|SPO^Spouse||^PRN^PH^^1^315^5550199",
    "PR1|1||0SR9019^Hip replacement^I10P||20260227080000-0500||90",
    "OBX|1|NM|29463-7^Body weight^LN||70|kg^^UCUM|||||F",
)


def _at(content: Any, path: str) -> list[dict[str, Any]]:
    """The resources of one type in a Bundle; `path` is its name."""
    return [each["resource"] for each in content["entry"] if each["resource"]["resourceType"] == path]


def test_a_whole_message_accounts_for_its_content() -> None:
    assert unfounded(orjson.loads(bytes(normalized(BODY).fhir)), BODY) == []


@pytest.mark.parametrize(
    ("kind", "invented", "path"),
    [
        ("Patient", {"name": [{"family": "SMITH"}]}, ".entry.resource.name.family"),
        ("Patient", {"birthDate": "1951-03-05"}, ".entry.resource.birthDate"),
        ("Patient", {"gender": "male"}, ".entry.resource.gender"),
        ("Encounter", {"hospitalization": {"dischargeDisposition": {"text": "home"}}}, ".text"),
        ("Encounter", {"period": {"end": "2026-03-08T09:30:00-04:00"}}, ".entry.resource.period.end"),
        ("Condition", {"code": {"coding": [{"code": "I50.1"}]}}, ".entry.resource.code.coding.code"),
    ],
)
def test_what_no_field_says_is_found(kind: str, invented: dict[str, Any], path: str) -> None:
    content = orjson.loads(bytes(normalized(BODY).fhir))
    _at(content, kind)[0].update(invented)
    (found,) = unfounded(content, BODY)
    assert found.endswith(path)
