"""Owns single assertions of another converter's tests, read as facts of FHIR resources.

They name variables of those tests; the few that say something of a resource are listed here with what they are
about. All others speak of that converter's inside (parsers, expressions) and are not applicable.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

Resource = Mapping[str, object]
Check = Callable[[Sequence[Resource], str], bool]


def _first(resources: Sequence[Resource], kind: str) -> Resource:
    return next((each for each in resources if each.get("resourceType") == kind), {})


def _step(value: object, path: str) -> object:
    for name in path.split("."):
        if isinstance(value, list):
            value = value[0] if value else None
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is(kind: str, path: str) -> Check:
    return lambda resources, value: str(_step(_first(resources, kind), path)) == value.strip('"')


def _has(kind: str, path: str, wanted: bool) -> Check:
    return lambda resources, _: (_step(_first(resources, kind), path) is not None) is wanted


def _holds(kind: str, path: str) -> Check:
    return lambda resources, value: value.strip('"') in str(_step(_first(resources, kind), path))


def _size(kind: str, path: str) -> Check:
    def check(resources: Sequence[Resource], value: str) -> bool:
        found = _step(_first(resources, kind), path)
        return (len(found) if isinstance(found, list) else 0) == int(value)

    return check


ASSERTIONS: Mapping[tuple[str, str], tuple[str, Check]] = {
    ("allergy.code.text", "isEqualTo"): ("AllergyIntolerance.code", _is("AllergyIntolerance", "code.text")),
    ("allergy.criticality.exists", "isFalse"): (
        "AllergyIntolerance.criticality",
        _has("AllergyIntolerance", "criticality", False),
    ),
    ("onsetAllergy.valueAsString", "isEqualTo"): (
        "AllergyIntolerance.onset",
        _is("AllergyIntolerance", "onsetDateTime"),
    ),
    ("encounter.period.exists", "isTrue"): ("Encounter.period.start", _has("Encounter", "period", True)),
    ("encounterPeriod.start.exists", "isTrue"): ("Encounter.period.start", _has("Encounter", "period.start", True)),
    ("encounterPeriod.end.exists", "isTrue"): ("Encounter.period.end", _has("Encounter", "period.end", True)),
    ("encounterPeriod.end.exists", "isFalse"): ("Encounter.period.end", _has("Encounter", "period.end", False)),
    ("encounterPeriod.end", "isNull"): ("Encounter.period.end", _has("Encounter", "period.end", False)),
    ("encounter.reasonCode.exists", "isTrue"): ("Encounter.reasonCode", _has("Encounter", "reasonCode", True)),
    ("reasonCodes", "hasSize"): ("Encounter.reasonCode", _size("Encounter", "reasonCode")),
    ("encounter.reasonReference", "hasSize"): ("Encounter.reasonReference", _size("Encounter", "reasonReference")),
    ("encounter.diagnosis", "hasSize"): ("Encounter.diagnosis", _size("Encounter", "diagnosis")),
    ("encParticipantList", "hasSize"): ("Encounter.participant", _size("Encounter", "participant")),
    ("serviceProvider", "isNotNull"): ("Encounter.serviceProvider", _has("Encounter", "serviceProvider", True)),
    ("coverage.subscriber.exists", "isFalse"): ("Coverage.subscriber", _has("Coverage", "subscriber", False)),
    ("obs.valueQuantity", "isNotNull"): ("Observation.value", _has("Observation", "valueQuantity", True)),
    ("patient.address[0].district", "hasToString"): (
        "Patient.address.district",
        _is("Patient", "address.district"),
    ),
    ("allergy.identifier", "hasSize"): ("AllergyIntolerance.identifier", _size("AllergyIntolerance", "identifier")),
    ("observation.identifier", "hasSize"): ("Observation.identifier", _size("Observation", "identifier")),
    ("condition.identifier", "hasSize"): ("Condition.identifier", _size("Condition", "identifier")),
    ("coverage.identifier", "hasSize"): ("Coverage.identifier", _size("Coverage", "identifier")),
    ("linkOne.type", "isEqualTo"): ("Patient.link", _is("Patient", "link.type")),
    ("related.name", "hasSize"): ("RelatedPerson.name", _size("RelatedPerson", "name")),
    ("related.relationship", "hasSize"): ("RelatedPerson.relationship", _size("RelatedPerson", "relationship")),
}


def asserted(
    facts: Iterable[Mapping[str, str]], resources: Sequence[Resource]
) -> Iterable[tuple[str, bool | None, str]]:
    """(fact class, whether it holds, what was wanted) per class; None where it is not about a resource."""
    verdicts: dict[str, tuple[bool | None, str]] = {}
    for fact in facts:
        known = ASSERTIONS.get((fact["subject"], fact["op"]))
        if known is None:
            verdicts.setdefault("its own inside", (None, ""))
            continue
        name, check = known
        wanted = f"{fact['op']} {fact.get('value', '')}"
        value = str(fact.get("value", ""))
        if not check(resources, value) or name not in verdicts:
            verdicts[name] = (
                check(resources, str(fact.get("value", ""))) and verdicts.get(name, (True, ""))[0],
                wanted,
            )
    for name, (holds, wanted) in verdicts.items():
        yield name, holds, wanted
