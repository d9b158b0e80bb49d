"""Owns how the simulated hospital writes HL7 v2.5.1 ADT messages."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from tocengine.simulation.people import Clinician, Person

STRUCTURES = {
    "A04": "A01",
    "A08": "A01",
    "A13": "A01",
    "A28": "A05",
    "A31": "A05",
    "A07": "A06",
    "A11": "A09",
    "A40": "A39",
}


@dataclass(frozen=True)
class Visit:
    """A visit as the hospital's registration system holds it."""

    number: str
    person: Person
    patient_class: str
    unit: str
    attending: Clinician
    admitted_at: datetime
    disposition: str = ""
    destination: str = ""
    discharged_at: datetime | None = None
    diagnosis: tuple[str, str] = ("I50.9", "Heart failure, unspecified")
    admit_source: str = ""

    def but(self, **changes: object) -> "Visit":
        """The visit with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


def escape(text: str) -> str:
    """Text with the default delimiters escaped (HL7 v2.5.1 section 2.7)."""
    for sign, code in (("\\", "\\E\\"), ("|", "\\F\\"), ("^", "\\S\\"), ("~", "\\R\\"), ("&", "\\T\\")):
        text = text.replace(sign, code)
    return text


def stamp(at: datetime) -> str:
    """YYYYMMDDHHMMSS with the offset."""
    return at.strftime("%Y%m%d%H%M%S%z")


def fields(name: str, values: dict[int, str]) -> str:
    """A segment with the given fields at their numbers."""
    return "|".join([name, *(values.get(number, "") for number in range(1, max(values) + 1))])


@dataclass
class AdtWriter:
    """Writes messages with rising control ids, as one sending application."""

    application: str
    facility: str
    authority: str
    prefix: str = ""
    _count: int = field(default=0, init=False)

    def message(
        self,
        trigger: str,
        visit: Visit,
        occurred: datetime,
        recorded: datetime,
        *,
        processing: str = "P",
        prior_mrn: str = "",
    ) -> bytes:
        """One ADT message, segments ended by CR, UTF-8. `prior_mrn` adds the MRG of an A40."""
        self._count += 1
        head = fields(
            "MSH",
            {
                1: "^~\\&",
                2: self.application,
                3: self.facility,
                4: "TOCENGINE",
                5: "HIE",
                6: stamp(recorded),
                8: f"ADT^{trigger}^ADT_{STRUCTURES.get(trigger, trigger)}",
                9: f"{self.prefix}{self._count:06d}",
                10: processing,
                11: "2.5.1",
                17: "UNICODE UTF-8",
            },
        )
        event = fields("EVN", {2: stamp(recorded), 6: stamp(occurred)})
        segments = [head, event, self._pid(visit), self._pd1(visit.person)]
        if prior_mrn:
            segments.append(fields("MRG", {1: f"{prior_mrn}^^^{self.authority}^MR"}))
        else:
            segments.append(self._pv1(visit))
            if visit.diagnosis[0]:
                code, text = visit.diagnosis
                segments.append(
                    fields(
                        "DG1",
                        {1: "1", 3: f"{code}^{escape(text)}^I10", 6: "F" if visit.discharged_at else "W"},
                    )
                )
        return ("\r".join(segment for segment in segments if segment) + "\r").encode()

    def _pid(self, visit: Visit) -> str:
        person = visit.person
        return fields(
            "PID",
            {
                1: "1",
                3: f"{person.mrn}^^^{self.authority}^MR",
                5: f"{escape(person.family)}^{escape(person.given)}^^^^^L",
                7: person.birth_date.strftime("%Y%m%d"),
                8: person.sex,
                11: f"{escape(person.street)}^^{person.town}^NY^{person.postal_code}",
                13: f"^PRN^PH^^1^{person.phone[:3]}^{person.phone[3:]}",
                18: f"H{visit.number}",
            },
        )

    def _pd1(self, person: Person) -> str:
        return fields("PD1", {4: clinician(person.pcp)}) if person.pcp else ""

    def _pv1(self, visit: Visit) -> str:
        unit, _, place = visit.unit.partition(":")
        values = {
            1: "1",
            2: visit.patient_class,
            3: f"{unit}^{place or '1'}^A^{self.authority}",
            7: clinician(visit.attending),
            10: "MED",
            14: visit.admit_source,
            19: f"{visit.number}^^^{self.authority}^VN",
            36: visit.disposition,
            37: escape(visit.destination),
            44: stamp(visit.admitted_at),
            45: stamp(visit.discharged_at) if visit.discharged_at else "",
        }
        return fields("PV1", {number: value for number, value in values.items() if value})


def clinician(who: Clinician) -> str:
    """An XCN with the NPI."""
    return f"{who.npi}^{escape(who.family)}^{escape(who.given)}^^^^MD^^NPI"
