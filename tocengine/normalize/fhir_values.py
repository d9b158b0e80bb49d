"""Owns how the values FHIR resources are made of are read: identifiers by system, codes, names, times, references."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from tocengine.formats.fhir.facts import NOT_PATIENTS, domain_system, is_oid
from tocengine.formats.fhir.incoming import Notification
from tocengine.formats.fhir.resources import CCN, IDENTIFIER_TYPE, NPI, Json, Resource
from tocengine.formats.hl7v2.time import read_time
from tocengine.model.event import UnmappedCode
from tocengine.model.facts import PersonName, told_name
from tocengine.model.identity import Identifier, Organization, Practitioner, valid_npi
from tocengine.model.profile import IdentifierDomain, Source
from tocengine.model.time import Timestamp
from tocengine.normalize.codes import Codes

SSN = frozenset({"http://hl7.org/fhir/sid/us-ssn", "urn:oid:2.16.840.1.113883.4.1"})
NUBC_DISPOSITIONS = (
    "https://www.nubc.org/CodeSystem/PatDischargeStatus",
    "http://terminology.hl7.org/CodeSystem/nubc-UB92",
)
"""The code system, and the name the Da Vinci examples use for it."""

_KINDS = ("mr", *NOT_PATIENTS)


class SentIdentifier(msgspec.Struct, frozen=True):
    """An Identifier as sent; `type` is its code of HL7 table 0203, `use` of identifier-use."""

    system: str
    value: str
    type: str
    use: str = ""


class Reader:
    """One message being read: how its identifiers, times and references resolve, and what was noticed on the way."""

    def __init__(
        self,
        notification: Notification,
        source: Source,
        codes: Codes,
        domains: Mapping[str, IdentifierDomain],
        time_zone: ZoneInfo,
        received_at: datetime,
    ) -> None:
        self.notification = notification
        self.source = source
        self.codes = codes
        self._domains = domains  # by system URI
        self.flags: set[str] = set()
        self.unmapped: list[UnmappedCode] = []
        self._zone = time_zone
        self.received_at = received_at

    def flag(self, name: str) -> None:
        """Notes something a person may want to know about this message."""
        self.flags.add(name)

    def unknown_code(self, table: str, code: str, path: str) -> None:
        """Flags a code that no table knows, and keeps it for whoever maps it."""
        self.flag(f"unmapped:{path}")
        if code:
            self.unmapped.append(UnmappedCode.sent(table, code))

    def flag_unresolved(self, reference: Json, path: str) -> None:
        """Flags a Reference that leads to nothing in the bundle and says nothing itself: what it means is lost."""
        if not isinstance(reference, dict) or "reference" not in reference or text_of(reference, "display"):
            return
        if "identifier" not in reference and self.notification.resolve(reference) is None:
            self.flag(f"unresolved:{path}")

    def time(self, text: Json) -> Timestamp | None:
        """A FHIR date, dateTime or instant; None, and a flag, where it is not one."""
        if not isinstance(text, str):
            return None
        try:
            return read_time(text, self._zone, self.received_at)
        except ValueError:
            self.flag("unreadable:time")
            return None

    def domain(self, system: str) -> IdentifierDomain | None:
        """The configured identifier domain with this system URI."""
        return self._domains.get(system)

    def identifier(self, sent: SentIdentifier) -> Identifier:
        """Under the configured domain's name, else under its system."""
        known = self.domain(sent.system)
        return Identifier(known.name if known else sent.system, sent.value, sent.type or None)

    def practitioner(self, reference: Json) -> Practitioner | None:
        """The person a Reference means, by way of a PractitionerRole too, or as far as the reference itself says."""
        resource = self.notification.resolve(reference)
        if resource is not None and resource["resourceType"] == "PractitionerRole":
            reference = resource.get("practitioner")
            resource = self.notification.resolve(reference)
        if resource is None:
            return _named_only(reference)
        if resource["resourceType"] != "Practitioner":
            return None
        name = told_name(names_of(resource)) or PersonName()
        numbers = identifiers_of(resource)
        npi = next((number.value for number in numbers if number.system == NPI and valid_npi(number.value)), None)
        local = next((self.identifier(number) for number in numbers if number.system not in ("", NPI, *SSN)), None)
        if not (npi or local or name.family) or self._is_placeholder(name, numbers):
            return None
        return Practitioner(name.family, name.given, name.suffix, npi, local)

    def _is_placeholder(self, name: PersonName, numbers: list[SentIdentifier]) -> bool:
        """What senders put where they know nobody: nobody, then, and a flag."""
        codes = self.codes
        found = name.family.upper() in codes.placeholder_names or any(
            codes.is_placeholder(number.value) for number in numbers
        )
        if found:
            self.flag("placeholder_practitioner")
        return found

    def organization(self, reference: Json) -> Organization | None:
        """The Organization a Reference means."""
        resource = self.notification.resolve(reference)
        if resource is None or resource["resourceType"] != "Organization":
            return None
        numbers = identifiers_of(resource)
        npi = next((number.value for number in numbers if number.system == NPI and valid_npi(number.value)), None)
        local = next((self.identifier(number) for number in numbers if number.system not in ("", NPI, CCN)), None)
        return Organization(text_of(resource, "name"), npi, local)


def domains_by_system(domains: Mapping[str, IdentifierDomain]) -> dict[str, IdentifierDomain]:
    """Configured domains by system URI; an alias that is an OID or a URI counts as one, and so do the URIs that the
    engine itself writes for a domain."""
    found: dict[str, IdentifierDomain] = {}
    for domain in domains.values():
        for name in (domain.system, *domain.aliases, *(domain_system(domain.name, domains, kind) for kind in _KINDS)):
            if is_oid(name):
                found.setdefault("urn:oid:" + name, domain)
            elif ":" in name:
                found.setdefault(name, domain)
    return found


def identifiers_of(resource: Resource) -> list[SentIdentifier]:
    """Identifiers that have a value, trimmed; those that no longer count (use `old`) after the others."""
    found = []
    for item in objects(resource.get("identifier")):
        value = item.get("value")
        if isinstance(value, str) and value.strip():
            kind = code_of(item.get("type"), IDENTIFIER_TYPE)
            found.append(SentIdentifier(text_of(item, "system"), value.strip(), kind, text_of(item, "use")))
    return sorted(found, key=lambda number: number.use == "old")


def names_of(resource: Resource) -> Iterator[PersonName]:
    """HumanNames that say anything; one with only `text` keeps it as the family name."""
    for item in objects(resource.get("name")):
        given = tuple(part for part in texts(item.get("given")) if part)
        family = text_of(item, "family") or ("" if given else text_of(item, "text"))
        if family or given:
            use = text_of(item, "use") or None
            prefix, suffix = " ".join(texts(item.get("prefix"))), " ".join(texts(item.get("suffix")))
            yield PersonName(family=family, given=given, prefix=prefix, suffix=suffix, use=use)


def objects(value: Json) -> list[Resource]:
    """The objects of a list, or the one object."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts(value: Json) -> list[str]:
    """The strings of a list."""
    return [item.strip() for item in value if isinstance(item, str)] if isinstance(value, list) else []


def text_of(resource: Resource, name: str) -> str:
    """A string element, trimmed; "" where there is none."""
    value = resource.get(name)
    return value.strip() if isinstance(value, str) else ""


def codings_of(concept: Json) -> list[tuple[str, str]]:
    """(system, code) of a CodeableConcept's codings."""
    coded = concept.get("coding") if isinstance(concept, dict) else None
    return [(text_of(item, "system"), text_of(item, "code")) for item in objects(coded) if text_of(item, "code")]


def code_of(concept: Json, *systems: str) -> str:
    """The first code of one of `systems`; "" where there is none."""
    return next((code for system, code in codings_of(concept) if system in systems), "")


def concept_text(concept: Json) -> str:
    """What a CodeableConcept says in words: its text, else the first display, else the first code."""
    if not isinstance(concept, dict):
        return ""
    displays = [text_of(item, "display") for item in objects(concept.get("coding"))]
    codes = [code for _, code in codings_of(concept)]
    return text_of(concept, "text") or next((text for text in displays + codes if text), "")


def _named_only(reference: Json) -> Practitioner | None:
    if not isinstance(reference, dict):
        return None
    number = reference.get("identifier")
    value = text_of(number, "value") if isinstance(number, dict) and number.get("system") == NPI else ""
    family = text_of(reference, "display")
    npi = value if valid_npi(value) else None
    return Practitioner(family=family, npi=npi) if family or npi else None
