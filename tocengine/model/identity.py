"""Owns the keys by which patients, visits, people and organizations are known: never a bare number."""

from functools import cached_property
from uuid import UUID

import msgspec

from tocengine.model.ids import AccountId, EncounterId, PatientId, derive
from tocengine.model.remembering import remembered

_id_of = remembered(16_384)(derive)
"""Of the keys of the last minutes: every message names its own again, and each costs a hash."""


class Identifier(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value within an identifier domain (assigning authority); `type` is a code of HL7 table 0203."""

    domain: str
    value: str
    type: str | None = None


class PatientKey(msgspec.Struct, frozen=True, order=True, dict=True):
    """Assigning authority and medical record number; `domain` is the configured name, aliases resolved."""

    domain: str
    value: str

    @cached_property
    def patient_id(self) -> PatientId:
        """The stable id of the patient record with this key (before any merge)."""
        return PatientId(_id_of("patient", self.domain, self.value))


class VisitKey(msgspec.Struct, frozen=True, order=True, dict=True):
    """Assigning authority and visit number, from the one field the source profile names."""

    domain: str
    value: str

    @cached_property
    def encounter_id(self) -> EncounterId:
        """The stable id of the encounter with this key (before any merge)."""
        return EncounterId(_id_of("encounter", self.domain, self.value))


class AccountKey(msgspec.Struct, frozen=True, order=True):
    """Assigning authority and account number (PID-18); an account holds visits of one patient."""

    domain: str
    value: str

    @property
    def account_id(self) -> AccountId:
        """The stable id of the account with this key (before any merge)."""
        return AccountId(derive("account", self.domain, self.value))


class Practitioner(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person of the care team; `npi` only where it is a valid one (Luhn with prefix 80840)."""

    family: str = ""
    given: tuple[str, ...] = ()
    suffix: str = ""
    npi: str | None = None
    local: Identifier | None = None

    @property
    def display(self) -> str:
        """ "ROE, ANN" or whatever part is known."""
        return ", ".join(part for part in (self.family, " ".join(self.given)) if part)


class Organization(msgspec.Struct, frozen=True, omit_defaults=True):
    """An organization named in a message, such as a primary care practice."""

    name: str = ""
    npi: str | None = None
    local: Identifier | None = None


def uuid_urn(value: UUID) -> str:
    """The ``urn:uuid:`` form used as a Bundle entry's fullUrl."""
    return f"urn:uuid:{value}"


def valid_npi(text: str) -> bool:
    """Whether `text` is a national provider identifier: ten digits whose Luhn sum holds with the prefix 80840
    (45 CFR 162.406)."""
    if len(text) != 10 or not (text.isascii() and text.isdigit()):
        return False
    total = 24  # the Luhn sum of the prefix 80840
    for position, digit in enumerate(reversed(text)):
        value = int(digit)
        if position % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0
