"""Owns the messages of a load: visits that differ in everything a hospital's differ in, at a given size.

A visit's number says everything about it, so that senders and receiver need not exchange what was sent: number n is
variant n modulo `VARIANTS`, and its notice goes to the facility of that variant.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from tocengine.model.ids import derive
from tocengine.simulation.adt import AdtWriter, Visit, escape, fields
from tocengine.simulation.davinci import MRN_SYSTEM, discharge_bundle
from tocengine.simulation.day import ATTENDING
from tocengine.simulation.people import Clinician, Person, Population, npi

VARIANTS = 100
FACILITIES = 10
SMALL_BYTES, LARGE_BYTES = 2_000, 9_000
SIZES = {"2 KB": SMALL_BYTES, "9 KB": LARGE_BYTES}
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


class Hospital(msgspec.Struct, frozen=True, kw_only=True):
    """Whose name the messages carry: MSH-3, MSH-4, and who assigned the numbers, in HL7 v2 and as a FHIR system."""

    application: str = "ADTOUT"
    facility: str = "STJ"
    authority: str = "STJ"
    system: str = MRN_SYSTEM


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What the messages of one load are. `tag` is in every number, so that no two loads of an engine meet."""

    tag: str = ""
    size: int = SMALL_BYTES
    told_every: int = 1  # of so many discharges one goes to a facility, the others home: nobody is told of those
    early_every: int = 0  # of so many discharges one comes before its admission and is held back; 0: none
    bundles: bool = False  # discharges are FHIR Bundles, which need no admission before them
    hospital: Hospital = Hospital()

    def told(self, number: int) -> bool:
        """Whether the visit's discharge leads to a notice."""
        return number % self.told_every == 0

    def early(self, number: int) -> bool:
        """Whether the visit's discharge comes before its admission."""
        return self.early_every > 0 and not self.bundles and number % self.early_every == 0


def facility_index(number: int) -> int:
    """Which facility is told of the visit's discharge."""
    return number % VARIANTS % FACILITIES


def facility_id(index: int) -> str:
    """Its id in the directory."""
    return f"bench-{index:02d}"


def facility_alias(index: int) -> str:
    """What the hospital calls the facility in PV1-37."""
    return f"BENCHMARK NURSING {index:02d}"


def facility_npi(index: int) -> str:
    """What a Bundle calls it by."""
    return npi(90_000 + index)


def number_of(visit_number: str) -> int:
    """The number of the visit that a notice names. Raises ValueError where it is none of ours."""
    return int(visit_number[-len(MARK) :])


class Visits:
    """Writes the admission (A01) and the discharge (A03, or a Bundle) of any number of visits."""

    def __init__(self, mix: Mix, now: datetime | None = None) -> None:
        """Prepares the variants: admitted three hours before `now`, discharged five minutes before."""
        self.mix = mix
        population = Population(seed=1)
        at = (now or datetime.now(UTC)).replace(microsecond=0)
        variants = [_variant(variant, population.person(), at, mix) for variant in range(VARIANTS)]
        self._admissions, self._discharges, self._home = (
            [message.split(MARK.encode()) for message in kind] for kind in zip(*variants, strict=True)
        )

    def admission(self, number: int) -> bytes:
        """The A01. Nobody is told of it: the patient has no practitioner and is on no panel."""
        return _numbered(self._admissions, number)

    def discharge(self, number: int) -> bytes:
        """One notice, to the facility the patient goes to, if the patient goes to one."""
        return _numbered(self._discharges if self.mix.told(number) else self._home, number)


def _numbered(variants: list[list[bytes]], number: int) -> bytes:
    return (b"%08d" % number).join(variants[number % VARIANTS])


def _variant(variant: int, person: Person, now: datetime, mix: Mix) -> tuple[bytes, bytes, bytes]:
    """The admission, the discharge to a facility and the discharge home."""
    gone = now - timedelta(minutes=5, seconds=variant)
    visit = Visit(
        number=f"V{mix.tag}{MARK}",
        person=replace(person, mrn=f"{mix.tag}{MARK}"),
        patient_class="I",
        unit=UNITS[variant % len(UNITS)],
        attending=ATTENDING[variant % len(ATTENDING)],
        admitted_at=now - timedelta(hours=3, seconds=variant),
        diagnosis=DIAGNOSES[variant % len(DIAGNOSES)],
    )
    index = facility_index(variant)
    told = visit.but(disposition="03", destination=facility_alias(index), discharged_at=gone)
    home = visit.but(disposition="01", discharged_at=gone)
    sender = mix.hospital
    writer = AdtWriter(sender.application, sender.facility, sender.authority, prefix=f"B{mix.tag}{MARK}-")

    def message(trigger: str, of: Visit, at: datetime) -> bytes:
        return _filled(writer.message(trigger, of, at, at + timedelta(seconds=2)), variant, person, mix.size)

    admission = message("A01", visit, visit.admitted_at)
    if mix.bundles:
        return admission, _bundle(told, mix, facility_npi(index)), _bundle(home, mix)
    return admission, message("A03", told, gone), message("A03", home, gone)


def _bundle(visit: Visit, mix: Mix, destination_npi: str = "") -> bytes:
    """As the hospital's FHIR sender writes it, with an id of its own."""
    own_id = str(derive("simulation", visit.number))
    body = discharge_bundle(visit, destination_npi=destination_npi)
    body = body.replace(own_id.encode(), f"{mix.tag}-{MARK}".encode())
    return body.replace(MRN_SYSTEM.encode(), mix.hospital.system.encode())


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
