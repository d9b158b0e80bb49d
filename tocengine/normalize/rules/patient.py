"""Owns PID and PD1: who the patient is, as facts and as the Patient resource."""

from collections.abc import Iterable, Mapping

from msgspec import UNSET, UnsetType

from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import patient_id
from tocengine.formats.fhir.resources import STRUCTURE, Json, Resource, is_identifier_type
from tocengine.formats.hl7v2.datatypes import CX, XAD, XPN, XTN
from tocengine.formats.hl7v2.segments import Field, Repetition, Segment
from tocengine.model.facts import Address, PatientFacts, PersonName, is_nobodys_birth, told_address
from tocengine.model.identity import Identifier, PatientKey
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading, clean
from tocengine.normalize.rules import civil, practitioners

_ANY_TYPE = "*"
NOT_LIVED_AT = frozenset({"N", "BDL", "BR", "F"})  # of a birth, and the country of origin (HL7 table 0190)
BIRTH_TIME = STRUCTURE + "patient-birthTime"


def identifiers(
    reading: Reading, fields: Iterable[Field], path: str = "PID-3"
) -> tuple[tuple[Identifier, ...], PatientKey | None]:
    """The identifiers of CX fields, and the one that is the key: the best-ranked, the first among equals.

    What may not be kept (social security and account numbers) and placeholders are left out at once.
    """
    found: list[Identifier] = []
    best, key = 1_000, None
    types = reading.codes.identifier_types
    for field in fields:
        for repetition in field if field else ():
            cx = CX.read(repetition)
            value = reading.key(cx.value, path)
            if not value:
                continue
            kind = clean(cx.type).upper()
            row = types.get(kind)
            if row is None:
                row = types[_ANY_TYPE]
                if not is_identifier_type(kind):
                    reading.unknown_code("identifier_type", kind, path)
            if not row.keep or cx.authority.namespace.upper() in ("USSSA", "SSA"):
                continue
            domain = reading.domain(cx.authority) or reading.own_domain()
            found.append(Identifier(domain, value, row.code or kind or None))
            if 0 < row.rank < best:
                best, key = row.rank, PatientKey(domain, value)
    return tuple(found), key


def record_numbers(reading: Reading, field: Field) -> tuple[PatientKey, ...]:
    """Every number of a CX field that ranks as high as its best one: the records a merge makes cease."""
    types = reading.codes.identifier_types
    found, key = identifiers(reading, (field,), "MRG-1")
    ranks = [(types.get(each.type or "") or types[_ANY_TYPE]).rank for each in found]
    best = min((rank for rank in ranks if rank > 0), default=0)
    numbers = (PatientKey(each.domain, each.value) for each, rank in zip(found, ranks, strict=True) if rank == best)
    return tuple(numbers) if key is not None else ()


def read_key(reading: Reading, segment: Segment) -> tuple[Identifier, ...]:
    """Sets the patient's key from PID-3, else PID-2 (where old feeds have it); gives all identifiers."""
    found, key = identifiers(reading, (segment[3],))
    if key is None:
        more, key = identifiers(reading, (segment[2],), "PID-2")
        found += more
    if key is not None:
        reading.patient_key = key
        reading.patient_id = patient_id(key)
    return found


def read(reading: Reading, segment: Segment, known: tuple[Identifier, ...]) -> PatientFacts:
    """The facts of PID and PD1; builds the Patient."""
    patient = reading.patient
    patient["resourceType"] = "Patient"
    patient["id"] = reading.patient_id
    patient["identifier"] = [fhir.patient_identifier(each, reading.source.domains) for each in known]
    names = _names(reading, segment)
    sex = _sex(reading, segment)
    birth = reading.time(segment[7], "PID-7")
    birth_date = birth.text[:10] if isinstance(birth, Timestamp) else birth
    deceased_at = reading.time(segment[29], "PID-29")
    phones = _phones(reading, segment)
    if isinstance(birth_date, str):
        patient["birthDate"] = birth_date
        if is_nobodys_birth(birth_date, reading.message.received_at):
            reading.flag("implausible:PID-7")
    elif birth_date is None:
        reading.cleared.append("Patient.birthDate")
    if isinstance(birth, Timestamp) and len(birth.text) > 10:
        patient["_birthDate"] = {"extension": [{"url": BIRTH_TIME, "valueDateTime": birth.text}]}
    deceased = _deceased(reading, segment, deceased_at)
    civil.read(reading, segment)
    address = _address(reading, segment[11], segment[12].text.strip())
    pcp, practices = practitioners.primary_care(reading)
    general: list[Json] = [
        reading.add(practitioners.resource(reading, person, reading.patient_id)) for person in pcp or ()
    ]
    general += practitioners.organizations(reading, practices or (), reading.patient_id)
    if general:
        patient["generalPractitioner"] = general
    elif pcp is None:
        reading.cleared.append("Patient.generalPractitioner")
    return PatientFacts(
        identifiers=known,
        names=names,
        birth_date=birth_date,
        sex=sex,
        deceased=deceased,
        deceased_at=deceased_at,
        phones=phones,
        address=address,
        pcp=pcp,
        pcp_practices=practices,
    )


def person_name(reading: Reading, repetition: Repetition) -> PersonName:
    """An XPN as a name; its use where FHIR has one for the name type."""
    found = XPN.read(repetition)
    return PersonName(
        family=found.family,
        given=tuple([part for part in (found.given, found.further_given) if part]),
        prefix=found.prefix,
        suffix=" ".join([part for part in (found.suffix, found.degree) if part]),
        use=_name_use(reading, found.type) or None,
    )


def _name_use(reading: Reading, sent: str) -> str:
    return _use(reading, ("name_use", "XPN-7"), reading.codes.name_uses, sent)


def _use(reading: Reading, named: tuple[str, str], rows: Mapping[str, str], sent: str) -> str:
    """What `sent` means in FHIR: "" where FHIR has no word for it, and where no row says so, which is flagged.

    `named` is the table and the component it translates.
    """
    if not sent:
        return ""
    use = rows.get(sent) or rows.get(sent.upper())
    if use is None and sent.upper() not in rows:
        reading.unknown_code(named[0], sent, named[1])
    return use or ""


def _names(reading: Reading, segment: Segment) -> tuple[PersonName, ...] | UnsetType | None:
    field = segment[5]
    if not field:
        if field.null:
            reading.cleared.append("Patient.name")
        return None if field.null else UNSET
    listed = [*field, *segment[9]]  # PID-9, the aliases of old feeds
    if len(listed) > 1:  # one of a type that has no use, such as an alias, would look like one without a type
        listed.sort(key=lambda each: bool(sent := XPN.read(each).type) and not _name_use(reading, sent))
    names = tuple(dict.fromkeys(name for each in listed if (name := person_name(reading, each)).family or name.given))
    if not names:
        return UNSET
    reading.patient["name"] = [fhir.human_name(name) for name in names]
    return names


def _sex(reading: Reading, segment: Segment) -> str | UnsetType | None:
    field = segment[8]
    if not field:
        if field.null:
            reading.cleared.append("Patient.gender")
        return None if field.null else UNSET
    sent = field.component(1).strip().upper()
    if not sent:  # blanks, or ``""`` in each repetition
        return UNSET
    sex = reading.codes.sexes.get(sent)
    if sex is None:
        reading.unknown_code("sex", sent, "PID-8")
        return UNSET
    reading.patient["gender"] = sex
    return sex


def _deceased(reading: Reading, segment: Segment, at: Timestamp | UnsetType | None) -> bool | UnsetType | None:
    """PID-29 tells a death with its time, PID-30 without."""
    field = segment[30]
    stated = field.text.strip().upper()
    if isinstance(at, Timestamp):
        reading.patient["deceasedDateTime"] = at.text
        return True
    if stated in ("Y", "N"):
        reading.patient["deceasedBoolean"] = stated == "Y"
        return stated == "Y"
    if field.null or at is None:
        reading.cleared += ["Patient.deceasedDateTime", "Patient.deceasedBoolean"]
        return None
    if stated:
        reading.flag("unmapped:PID-30")
    return UNSET


def telecom(reading: Reading, repetition: Repetition, default_use: str = "") -> Resource | None:
    """An XTN as a ContactPoint, or None where it names none."""
    found = XTN.read(repetition)
    codes = reading.codes
    system = _use(reading, ("telecom.system", "XTN-3"), codes.telecom_systems, found.equipment)
    system = system or ("email" if found.use.upper() == "NET" else "phone")
    if system == "email" or (found.email and not (found.number or found.local_number or found.unformatted)):
        system, value = "email", found.email or found.number or found.unformatted
    else:
        value = _number(found)
    if not value:
        return None
    use = codes.telecom_uses_by_equipment.get(found.equipment)
    use = use or _use(reading, ("telecom.use", "XTN-2"), codes.telecom_uses, found.use)
    point: Resource = {"system": system, "value": value}
    if use := use or (default_use if not found.use else ""):
        point["use"] = use
    return point


def _number(found: XTN) -> str:
    """``+1 315 5550142`` of the parts, else the number as it was written."""
    if not found.local_number:
        return found.number or found.unformatted
    country = found.country_code if not found.country_code.isdigit() else f"+{found.country_code}"
    number = " ".join([part for part in (country, found.area_code, found.local_number) if part])
    return f"{number} x{found.extension}" if found.extension else number


def _phones(reading: Reading, segment: Segment) -> tuple[str, ...] | UnsetType | None:
    points: list[Json] = []
    phones = []
    for number, use in ((13, "home"), (14, "work"), (40, "")):
        field = segment[number]
        for repetition in field if field else ():
            point = telecom(reading, repetition, use)
            if point is not None and point not in points:
                points.append(point)
                if point["system"] == "phone":
                    phones.append(str(point["value"]))
    if points:
        reading.patient["telecom"] = points
        return tuple(phones) if phones else UNSET
    if segment[13].null:
        reading.cleared.append("Patient.telecom")
        return None
    return UNSET


def postal_address(found: XAD) -> Address:
    """An XAD as an address."""
    return Address(
        lines=tuple([line for line in (found.street, found.other) if line]),
        city=found.city,
        state=found.state,
        postal_code=found.postal_code,
    )


def fhir_address(reading: Reading, repetition: Repetition) -> Resource:
    """An XAD as a FHIR Address; empty where it says nothing."""
    found = XAD.read(repetition)
    return _shown(reading, found, postal_address(found))


def _shown(reading: Reading, found: XAD, address: Address) -> Resource:
    shown = fhir.postal_address(address)
    if shown:
        if found.county:
            shown["district"] = found.county
        if found.country:
            shown["country"] = found.country
    kind = found.type.upper()
    if shown and kind:
        if postal := reading.codes.address_types.get(kind):
            shown["type"] = postal
        elif use := _use(reading, ("address.use", "XAD-7"), reading.codes.address_uses, kind):
            shown["use"] = use
    return shown


def _address(reading: Reading, field: Field, county: str) -> Address | UnsetType | None:
    """PID-11, and PID-12, the county: of the one address that names none, else it stands alone."""
    if not field:
        if county:
            reading.patient["address"] = [{"district": county}]
        elif field.null:
            reading.cleared.append("Patient.address")
        return None if field.null else UNSET
    stated = [(found, postal_address(found)) for found in map(XAD.read, field)]
    shown: list[Json] = [address for each in stated if (address := _shown(reading, *each))]
    if county:
        districts = [each.get("district") for each in shown if isinstance(each, dict)]
        if districts == [None]:
            shown = [{**each, "district": county} for each in shown if isinstance(each, dict)]
        elif county not in districts:
            shown.append({"district": county})
    if not shown:
        return UNSET
    reading.patient["address"] = shown
    uses = reading.codes.address_uses
    lived = [(found.type.upper(), address) for found, address in stated if found.type.upper() not in NOT_LIVED_AT]
    return told_address((uses.get(kind, ""), address) for kind, address in lived) or UNSET
