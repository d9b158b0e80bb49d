"""What the engine makes of a message, element by element, found by experiment."""

from tests.fixtures.adt import RECEIVED, movement, source
from tocengine.normalize.explain import TableRow, explain

BODY = movement(
    "A03",
    {2: "HOV", 36: "03", 37: "SUNNYSIDE REHAB"},
    "DG1|1||I50.9^Heart failure^I10|||F",
    "ZZZ|local",
)


def test_each_element_knows_its_fields_and_rows() -> None:
    made = explain(BODY, source(), RECEIVED)
    by_path = {each.path: each for each in made.elements}
    setting = by_path["summary.encounter_facts.disposition.care_setting"]
    assert (setting.value, setting.fields) == ("SNF", ("PV1-36",))
    assert TableRow("disposition", "03", True) in setting.rows
    assert by_path["summary.trigger"].fields == ("MSH-9",)
    assert by_path["summary.visit.value"].fields == ("PV1-19.1",)
    assert by_path["Patient.identifier[0].value"].fields == ("PID-3.1",)
    assert by_path["Condition.code.coding[0].system"].fields == ("DG1-3.1", "DG1-3.3")
    assert by_path["Condition.category[0].coding[0].code"].fields == ("DG1-3",)
    assert by_path["Encounter.participant[0].individual.reference"].value == "Practitioner"


def test_flags_and_unused_fields_are_named() -> None:
    made = explain(BODY, source(), RECEIVED)
    flag = next(each for each in made.flags if each.path == "unmapped:PV1-2")
    assert flag.fields == ("PV1-2",)
    assert TableRow("class", "HOV", False) in flag.rows
    assert "ZZZ-1" in made.unused
    assert "PV1-36" not in made.unused
    assert not [place for place in made.unused if place.startswith("MSH")]


def test_a_refused_message_says_why() -> None:
    made = explain(movement("A03", {19: ""}), source(), RECEIVED)
    assert made.problem is not None
    assert made.problem.location == "PV1^1^19"
    assert explain(b"nothing", source(), RECEIVED).problem is not None


def test_what_no_field_made_is_said_to_be_made_by_none() -> None:
    """Constants of the rules (a status, a class of the settings, who the hospital is) have no field to name."""
    made = explain(BODY, source(), RECEIVED)
    constant = {each.path: each.value for each in made.elements if not each.fields}
    assert constant["Organization.name"] == "STJ Hospital"
    assert constant["Organization.identifier[0].value"] == "1999000023"
    assert constant["Provenance.agent[0].type.coding[0].code"] == "author"
    assert not [path for path in constant if path.startswith(("summary.patient", "summary.encounter", "Condition"))]
    assert not [path for path in constant if path.startswith(("Patient", "Encounter.location", "Encounter.hosp"))]
