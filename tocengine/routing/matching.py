"""Owns who is a candidate for a fact, and on what basis: destination, panel, primary care. Policy says who is told."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

import msgspec

from tocengine.model.directory import OPT_OUT, Recipient, days_anywhere
from tocengine.model.encounter import Fact, TrackedEncounter, TransitionKind
from tocengine.model.facts import CareSetting, known
from tocengine.model.identity import PatientKey
from tocengine.model.ids import FacilityId, RecipientId
from tocengine.model.notice import Basis, ReasonCode
from tocengine.model.profile import SendingFacility
from tocengine.routing.directory import NOT_NAMED, DestinationMatch, Directory, Problem

DISCHARGES = frozenset({TransitionKind.ED_DISCHARGE, TransitionKind.INPATIENT_DISCHARGE})

POST_ACUTE = frozenset(
    {
        CareSetting.SNF,
        CareSetting.ICF_ALF,
        CareSetting.HOME_HEALTH,
        CareSetting.FEDERAL,
        CareSetting.HOSPICE_HOME,
        CareSetting.HOSPICE_FACILITY,
        CareSetting.SWING_BED,
        CareSetting.IRF,
        CareSetting.LTACH,
        CareSetting.NURSING_FACILITY,
        CareSetting.PSYCH,
    }
)
"""Settings whose provider is told of the discharge to it (domain section 3, column 4: yes)."""
TRANSFER = frozenset({CareSetting.ACUTE_HOSPITAL, CareSetting.SPECIALTY_HOSPITAL, CareSetting.CAH})
UNDECIDED = frozenset({CareSetting.UNKNOWN, CareSetting.DISASTER_SITE, CareSetting.OTHER_FACILITY})
"""Settings that say nothing of who is next: only a destination named in the message counts."""
NEVER = frozenset(
    {
        CareSetting.AMA,
        CareSetting.EXPIRED,
        CareSetting.LAW_ENFORCEMENT,
        CareSetting.ADMITTED_SAME,
        CareSetting.STILL_PATIENT,
    }
)

_AGENCY_SETTINGS = frozenset({CareSetting.HOME_HEALTH, CareSetting.HOSPICE_HOME})
_AGENCY_TYPES = frozenset({"HHA", "HOSPICE"})
_BED_TYPES = frozenset({"SNF", "NF", "ALF", "ICF", "IRF", "LTCH", "LTACH"})


class PanelHit(msgspec.Struct, frozen=True):
    """A panel member that has one of the patient's identifiers."""

    recipient_id: RecipientId
    domain: str
    starts: date | None = None
    ends: date | None = None


class Candidate(msgspec.Struct, frozen=True):
    """Someone who might be told of a fact. `blocked` is what already stands against it; `evidence` names where
    the basis was found, never a value."""

    recipient_id: RecipientId
    basis: tuple[Basis, ...]
    evidence: str
    blocked: ReasonCode | None = None


class Matches(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone who has to do with an encounter, before looking at a single fact."""

    panel: tuple[PanelHit, ...] = ()
    primary_care: tuple[tuple[RecipientId, str], ...] = ()
    destination: DestinationMatch = NOT_NAMED
    destination_expected: bool = False  # the care setting has a next provider, named or not
    destination_blocked: ReasonCode | None = None
    destination_evidence: str = ""
    own_facility: frozenset[RecipientId] = frozenset()
    opted_out: frozenset[RecipientId] = frozenset()  # whom the patient does not want told; "" is everybody

    def refusal(self, recipient_id: RecipientId) -> ReasonCode | None:
        """What the patient wants told to this recipient, under any of her numbers: a refusal of one wins."""
        if RecipientId("") in self.opted_out:
            return ReasonCode.OPTED_OUT
        return ReasonCode.RECIPIENT_DENIED if recipient_id in self.opted_out else None

    def refused(self, recipients: Iterable[RecipientId]) -> frozenset[RecipientId]:
        """Which of `recipients` the patient does not want told."""
        return frozenset(each for each in recipients if each and self.refusal(each) is not None)

    def candidates(self, fact: Fact) -> tuple[Candidate, ...]:
        """Who might be told of `fact`; several bases of one recipient merge, the strongest first."""
        found: dict[RecipientId, tuple[tuple[Basis, ...], tuple[str, ...], ReasonCode | None]] = {}
        if fact.kind in DISCHARGES and self.destination.recipient_id is not None:
            own = (Basis.DESTINATION,), (self.destination_evidence,), self.destination_blocked
            found[self.destination.recipient_id] = own
        if self.panel:
            day = date.fromisoformat(fact.effective.text[:10]) if len(fact.effective.text) >= 10 else None
            for hit in self.panel:
                _add_member(found, hit, day or fact.effective.at.date())
        for recipient_id, evidence in self.primary_care:
            _add(found, recipient_id, Basis.PCP, evidence)
        return tuple(
            Candidate(
                recipient_id,
                basis,
                "; ".join(evidence),
                ReasonCode.FILTERED if recipient_id in self.own_facility else blocked or self.refusal(recipient_id),
            )
            for recipient_id, (basis, evidence, blocked) in found.items()
        )


_Found = dict[RecipientId, tuple[tuple[Basis, ...], tuple[str, ...], ReasonCode | None]]


def _add(found: _Found, recipient_id: RecipientId, basis: Basis, evidence: str) -> None:
    bases, evidences, blocked = found.get(recipient_id, ((), (), None))
    if blocked is not None:  # an open door beside a closed one
        bases, evidences = (), ()
    if basis not in bases:
        bases, evidences = (*bases, basis), (*evidences, evidence)
    found[recipient_id] = bases, evidences, None


def _add_member(found: _Found, hit: PanelHit, day: date) -> None:
    """Members as of the day of the event, as the sender's calendar has it; both ends are inclusive."""
    if hit.starts is not None and day < hit.starts:
        return
    if hit.ends is None or day <= hit.ends:
        _add(found, hit.recipient_id, Basis.PANEL, f"panel {hit.domain}")
    elif hit.recipient_id not in found:
        found[hit.recipient_id] = (Basis.PANEL,), (f"panel {hit.domain}",), ReasonCode.PANEL_EXPIRED


def identifiers(tracked: TrackedEncounter) -> tuple[PatientKey, ...]:
    """Every identifier the patient goes by: the surviving key, its aliases, and those the messages named. A
    number that changed hands is none of them: whoever has it on a list has its former owner there."""
    stated = tracked.snapshot.patient.identifiers
    if not stated:
        return tracked.patient_keys
    named = (PatientKey(domain=i.domain, value=i.value) for i in stated if i.domain and i.value)
    known = dict.fromkeys((*tracked.patient_keys, *named))
    return tuple(key for key in known if key not in tracked.moved_keys)


def match(
    tracked: TrackedEncounter,
    hits: Iterable[PanelHit],
    directory: Directory,
    facilities: Mapping[FacilityId, SendingFacility],
    at: datetime | None = None,
) -> Matches:
    """Everyone who has to do with `tracked`; `hits` are the panel members, and opt-outs, with one of its
    identifiers. Opt-outs count as of `at`, by default as of when the last message was received."""
    encounter = tracked.snapshot.encounter
    disposition, destination = known(encounter.disposition), known(encounter.destination)
    setting = disposition.care_setting if disposition else CareSetting.UNKNOWN
    resolved, blocked, expected, evidence = NOT_NAMED, None, setting in POST_ACUTE, ""
    if setting not in NEVER and not tracked.deceased:
        if destination is not None:
            resolved = directory.match(tracked.snapshot.feed, destination)
        if resolved.recipient_id is not None:
            evidence = f"destination by {resolved.how}"
            recipient = directory.recipient(resolved.recipient_id)
            if recipient is not None and _contradicts(setting, recipient) and not resolved.explicit:
                blocked, evidence = ReasonCode.DESTINATION_UNRESOLVED, f"{evidence}, disposition_conflict"
        elif setting is CareSetting.HOME:
            resolved = NOT_NAMED  # "home" with an address or a name in the field is no facility
        else:
            expected = expected or resolved.problem is not Problem.NOT_NAMED
    else:
        expected = False
    hits = tuple(hits)
    earliest, latest = days_anywhere(at or tracked.snapshot.received_at)
    return Matches(
        panel=tuple(hit for hit in hits if not hit.recipient_id.startswith(OPT_OUT)),
        opted_out=frozenset(
            RecipientId(hit.recipient_id.removeprefix(OPT_OUT))
            for hit in hits
            if hit.recipient_id.startswith(OPT_OUT)
            and (hit.starts is None or hit.starts <= latest)
            and (hit.ends is None or earliest <= hit.ends)
        ),
        primary_care=_primary_care(tracked, directory),
        destination=resolved,
        destination_expected=expected,
        destination_blocked=blocked,
        destination_evidence=evidence,
        own_facility=_own(tracked, directory, facilities, setting),
    )


def _contradicts(setting: CareSetting, recipient: Recipient) -> bool:
    """Whether the disposition says another kind of care than the facility gives (domain section 3)."""
    if setting is CareSetting.HOME:
        return True
    kind = recipient.type.upper()
    if setting in _AGENCY_SETTINGS:
        return kind in _BED_TYPES
    return setting in POST_ACUTE and setting is not CareSetting.HOSPICE_FACILITY and kind in _AGENCY_TYPES


def _primary_care(tracked: TrackedEncounter, directory: Directory) -> tuple[tuple[RecipientId, str], ...]:
    patient = tracked.snapshot.patient
    people = [(p.npi, "PCP by npi") for p in known(patient.pcp) or ()]
    practices = [(p.npi, "PCP practice by npi") for p in known(patient.pcp_practices) or ()]
    found: dict[RecipientId, str] = {}
    for npi, evidence in people + practices:
        ids = directory.by_npi(npi) if npi else ()
        if len(ids) == 1:  # an identifier shared by several locations names none of them
            found.setdefault(ids[0], evidence)
    return tuple(found.items())


def _own(
    tracked: TrackedEncounter,
    directory: Directory,
    facilities: Mapping[FacilityId, SendingFacility],
    setting: CareSetting,
) -> frozenset[RecipientId]:
    """The sender's own entries in the directory: nobody is told of an event it originated (domain 5.5). A swing
    bed is the exception: the same hospital is the next provider."""
    sender = facilities.get(tracked.snapshot.facility)
    if sender is None or not sender.npi or setting is CareSetting.SWING_BED:
        return frozenset()
    return frozenset(directory.by_npi(sender.npi))


def group_hits(count: int, rows: Sequence[tuple[int, PanelHit]]) -> tuple[tuple[PanelHit, ...], ...]:
    """Panel hits by encounter, from (index of the encounter, hit) rows of one lookup for the whole batch."""
    grouped: list[list[PanelHit]] = [[] for _ in range(count)]
    for index, hit in rows:
        if hit not in grouped[index]:
            grouped[index].append(hit)
    return tuple(tuple(hits) for hits in grouped)
