"""Owns the messages of the benchmarks: visits that differ in everything a hospital's differ in, at a given size.

A visit's number says everything about it, so that senders and receiver need not exchange what was sent: number n is
variant n modulo `VARIANTS`, and its notice goes to the facility of that variant.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tocengine.simulation.adt import AdtWriter, Visit, escape, fields
from tocengine.simulation.day import ATTENDING
from tocengine.simulation.people import Clinician, Person, Population, npi

VARIANTS = 100
FACILITIES = 10
SMALL_BYTES, LARGE_BYTES = 2_000, 9_000
MARK = "99999999"  # stands for the visit's number in what is prepared
DIAGNOSES = (
    ("I50.9", "Heart failure, unspecified"),
    ("J18.9", "Pneumonia, unspecified organism"),
    ("S72.001A", "Fracture of unspecified part of neck of right femur, initial encounter"),
    ("I63.9", "Cerebral infarction, unspecified"),
    ("N17.9", "Acute kidney failure, unspecified"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("J44.1", "Chronic obstructive pulmonary disease with (acute) exacerbation"),
)
ALLERGIES = (("70618", "Penicillin"), ("2670", "Codeine"), ("1191", "Aspirin"), ("36567", "Simvastatin"))
UNITS = ("3N:4", "4W:410", "ICU:2", "5S:12", "2E:7")
RELATIVES = (("SPO", "Spouse"), ("CHD", "Child"), ("SIB", "Sibling"))
PAYERS = ("EMPIRE HEALTH PLAN", "MOHAWK VALLEY MUTUAL", "NORTH STAR ADVANTAGE")
TESTS = (("2345-7", "Glucose", "mg/dL"), ("2951-2", "Sodium", "mmol/L"), ("718-7", "Hemoglobin", "g/dL"))


def facility_id(number: int) -> str:
    """The facility that is told of the visit's discharge."""
    return f"snf-{number % VARIANTS % FACILITIES:02d}"


def facility_alias(index: int) -> str:
    """What the hospital calls the facility in PV1-37."""
    return f"SKILLED NURSING {index:02d}"


def visit_number(number: int) -> str:
    """PV1-19.1 of the visit."""
    return f"V{number:08d}"


class Visits:
    """Writes the admission (A01) and the discharge (A03) of any number of visits of about `size` bytes each."""

    def __init__(self, size: int = SMALL_BYTES, now: datetime | None = None, told_every: int = 1) -> None:
        """Prepares the variants: admitted three hours before `now`, discharged five minutes before.

        Of `told_every` discharges one goes to a facility, the others home: nobody is told of those.
        """
        self._told_every = told_every
        self._admissions: list[list[bytes]] = []
        self._discharges: list[list[bytes]] = []
        self._home: list[list[bytes]] = []
        population = Population(seed=1)
        at = (now or datetime.now(UTC)).replace(microsecond=0)
        for variant in range(VARIANTS):
            admission, discharge, home = _variant(variant, population.person(), at, size)
            self._admissions.append(admission.split(MARK.encode()))
            self._discharges.append(discharge.split(MARK.encode()))
            self._home.append(home.split(MARK.encode()))

    def admission(self, number: int) -> bytes:
        """The A01. Nobody is told of it: the patient has no practitioner and is on no panel."""
        return _numbered(self._admissions, number)

    def discharge(self, number: int) -> bytes:
        """The A03: one notice, to the facility the patient goes to, if the patient goes to one."""
        return _numbered(self._discharges if number % self._told_every == 0 else self._home, number)


def _numbered(variants: list[list[bytes]], number: int) -> bytes:
    return (b"%08d" % number).join(variants[number % VARIANTS])


def _variant(variant: int, person: Person, now: datetime, size: int) -> tuple[bytes, bytes, bytes]:
    admitted = now - timedelta(hours=3, seconds=variant)
    gone = now - timedelta(minutes=5, seconds=variant)
    visit = Visit(
        number=f"V{MARK}",
        person=replace(person, mrn=MARK),
        patient_class="I",
        unit=UNITS[variant % len(UNITS)],
        attending=ATTENDING[variant % len(ATTENDING)],
        admitted_at=admitted,
        diagnosis=DIAGNOSES[variant % len(DIAGNOSES)],
    )
    discharged = visit.but(disposition="03", destination=facility_alias(variant % FACILITIES), discharged_at=gone)
    writer = AdtWriter("ADTOUT", "STJ", "STJ", prefix=f"B{MARK}-")
    admission = writer.message("A01", visit, admitted, admitted + timedelta(seconds=2))
    discharge = writer.message("A03", discharged, gone, gone + timedelta(seconds=2))
    went_home = writer.message(
        "A03", visit.but(disposition="01", discharged_at=gone), gone, gone + timedelta(seconds=2)
    )
    return (
        _filled(admission, variant, person, size),
        _filled(discharge, variant, person, size),
        _filled(went_home, variant, person, size),
    )


def _filled(message: bytes, variant: int, person: Person, size: int) -> bytes:
    """The message with the segments real ones carry besides, and with results up to `size` bytes."""
    segments = [message.decode(), *(f"{segment}\r" for segment in _besides(variant, person))]
    length = sum(len(segment.encode()) for segment in segments)
    count = 0
    while length < size - 60:
        count += 1
        segments.append(f"{_result(variant, count)}\r")
        length += len(segments[-1])
    return "".join(segments).encode()


def _besides(variant: int, person: Person) -> list[str]:
    relation, text = RELATIVES[variant % len(RELATIVES)]
    address = f"{escape(person.street)}^^{person.town}^NY^{person.postal_code}"
    phone = f"^PRN^PH^^1^{person.phone[:3]}^{person.phone[3:]}"
    kin = f"{escape(person.family)}^{'ALEX' if variant % 2 else 'ROBIN'}^^^^^L"
    consulting = Clinician(npi(200 + variant), "MERRIWEATHER", "JOAN")
    secondary = [DIAGNOSES[(variant + step) % len(DIAGNOSES)] for step in (1, 2, 3)]
    return [
        fields(
            "NK1", {1: "1", 2: kin, 3: f"{relation}^{text}^HL70063", 4: address, 5: phone, 7: "C^Emergency^HL70131"}
        ),
        fields("PV2", {3: "^SCHEDULED AND EMERGENT ADMISSION", 12: "Transferred from outlying clinic", 23: "ST JUDE"}),
        *(
            fields(
                "DG1", {1: str(number), 3: f"{code}^{escape(text)}^I10", 6: "F", 16: f"{consulting.npi}^MERRIWEATHER"}
            )
            for number, (code, text) in enumerate(secondary, 2)
        ),
        *(
            fields(
                "AL1", {1: str(number), 2: "DA^Drug allergy^HL70127", 3: f"{code}^{text}^RXNORM", 4: "MO", 5: "HIVES"}
            )
            for number, (code, text) in enumerate(ALLERGIES[: 1 + variant % 3], 1)
        ),
        fields("GT1", {1: "1", 3: kin, 5: address, 6: phone, 11: f"{relation}^{text}^HL70063"}),
        fields(
            "IN1",
            {
                1: "1",
                2: f"PLAN{variant:04d}^Group plan^L",
                3: f"PAY{variant % 3}^^^STJ^NIIP",
                4: PAYERS[variant % 3],
                5: "PO BOX 1138^^Utica^NY^13503",
                7: "^WPN^PH^^1^315^5550199",
                8: f"G{variant:06d}",
                12: "20260101",
                16: kin,
                17: f"{relation}^{text}^HL70063",
                36: f"XJ{variant:07d}",
            },
        ),
    ]


def _result(variant: int, count: int) -> str:
    code, text, unit = TESTS[count % len(TESTS)]
    value = 40 + (variant * 7 + count * 13) % 160
    return fields(
        "OBX", {1: str(count), 2: "NM", 3: f"{code}^{text}^LN", 5: str(value), 6: unit, 7: "60-140", 8: "N", 11: "F"}
    )
