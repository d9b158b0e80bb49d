"""Owns the parts routing is tested with: invented encounters, recipients and a ledger that remembers what was ruled."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import msgspec

from tocengine.model.directory import (
    Alias,
    ChannelKind,
    Endpoint,
    Level,
    Recipient,
    RecipientKind,
    Subscription,
)
from tocengine.model.encounter import (
    EncounterState,
    Fact,
    Snapshot,
    TrackedEncounter,
    TransitionKind,
    TransitionStatus,
)
from tocengine.model.facts import (
    CareSetting,
    Destination,
    Disposition,
    EncounterFacts,
    PatientFacts,
)
from tocengine.model.identity import Organization, PatientKey, Practitioner, VisitKey
from tocengine.model.ids import (
    EndpointId,
    FacilityId,
    FeedName,
    MessageId,
    PatientId,
    RecipientId,
    SnapshotId,
    derive,
)
from tocengine.model.notice import Notice, NoticeState, RoutingDecision
from tocengine.model.profile import SendingFacility
from tocengine.model.time import Timestamp
from tocengine.routing.directory import Directory
from tocengine.routing.ledger import Ledger, LedgerRow, fold
from tocengine.routing.matching import PanelHit, match
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.router import decide
from tocengine.routing.rulings import Ruling

K = TransitionKind
FEED = FeedName("stj-adt")
NOW = datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
VISIT = VisitKey("STJ", "V500")
PATIENT = PatientKey("STJ", "0012345")
SUNNYSIDE = RecipientId("facility:sunnyside")
MEADOW = RecipientId("facility:meadow")
PATEL = RecipientId("practitioner:patel")
PATEL_NPI = "1234567893"
SUNNYSIDE_NPI = "1999000015"
HOSPITAL_NPI = "1999000023"
POLICY = RoutePolicy(
    facilities={FacilityId("stj"): SendingFacility(id=FacilityId("stj"), name="STJ Hospital", npi=HOSPITAL_NPI)}
)


def at(hours: float = 0, days: float = 0) -> datetime:
    return NOW + timedelta(hours=hours, days=days)


def stamp(moment: datetime) -> Timestamp:
    return Timestamp(text=moment.isoformat(timespec="seconds"), at=moment)


def message_id(name: str) -> MessageId:
    return MessageId(derive("test-message", name))


def recipient(
    identity: RecipientId,
    *,
    npi: str | None = None,
    kind: str = "SNF",
    aliases: Iterable[Alias | str] = (),
    endpoints: bool = True,
    events: tuple[TransitionKind, ...] = (),
    level: Level = Level.FULL,
    ccn: str | None = None,
) -> Recipient:
    own_id = identity.partition(":")[2]
    return Recipient(
        recipient_id=identity,
        kind=RecipientKind(identity.partition(":")[0]),
        name=own_id.title(),
        type=kind,
        npi=npi,
        ccn=ccn,
        aliases=tuple(a if isinstance(a, Alias) else Alias(a) for a in aliases),
        endpoints=(
            (Endpoint(id=EndpointId(f"{own_id}-hook"), channel=ChannelKind.WEBHOOK, url="https://x.test/n"),)
            if endpoints
            else ()
        ),
        subscription=Subscription(events=events, level=level),
    )


DIRECTORY = Directory(
    1,
    (
        recipient(SUNNYSIDE, npi=SUNNYSIDE_NPI, aliases=("SUNNYSIDE REHAB",)),
        recipient(MEADOW, aliases=("MEADOW",)),
        recipient(PATEL, npi=PATEL_NPI, kind="", level=Level.STANDARD),
    ),
)


def fact(
    kind: TransitionKind,
    occurrence: int = 1,
    *,
    effective: datetime = NOW,
    received: datetime | None = None,
    watched: bytes = b"v1",
    covered_by: str = "",
    message: str = "m1",
) -> Fact:
    return Fact(
        kind=kind,
        occurrence=occurrence,
        effective=stamp(effective),
        recorded=stamp(effective),
        received_at=received or max(effective, NOW),
        message_id=message_id(message),
        watched=watched,
        covered_by=covered_by,
    )


def tracked(
    *facts: Fact,
    cancelled: tuple[tuple[Fact, TransitionKind], ...] = (),
    state: EncounterState = EncounterState.DISCHARGED,
    destination: Destination | None = None,
    setting: CareSetting | None = None,
    pcp: str | None = None,
    practice: str | None = None,
    received: datetime = NOW,
    message: str = "m1",
    sensitivity: tuple[str, ...] = (),
    part2: bool = False,
    deceased: bool = False,
    suppressed: str = "",
    shadow: bool = False,
    keys: tuple[PatientKey, ...] = (PATIENT,),
    messages: tuple[str, ...] | None = None,
) -> TrackedEncounter:
    patient = PatientFacts(
        pcp=(Practitioner(family="PATEL", npi=pcp),) if pcp else None,
        pcp_practices=(Organization(name="UTICA FAMILY MED", npi=practice),) if practice else None,
    )
    encounter = EncounterFacts(
        destination=destination,
        disposition=Disposition(raw="x", code="03", care_setting=setting) if setting else None,
    )
    snapshot = Snapshot(
        snapshot_id=SnapshotId(derive("snapshot", VISIT.encounter_id.bytes, message)),
        encounter_id=VISIT.encounter_id,
        feed=FEED,
        facility=FacilityId("stj"),
        state=state,
        patient_key=keys[0],
        visit=VISIT,
        patient=patient,
        encounter=encounter,
        trigger="A03",
        control_id="9001",
        message_id=message_id(message),
        received_at=received,
    )
    return TrackedEncounter(
        encounter_id=VISIT.encounter_id,
        patient_id=keys[0].patient_id,
        patient_keys=keys,
        snapshot=snapshot,
        facts=facts,
        cancelled=cancelled,
        transitions=(),
        sensitivity=sensitivity,
        part2=part2,
        deceased=deceased,
        suppressed=suppressed,
        shadow=shadow,
        message_ids=tuple(message_id(name) for name in (messages or (message,))),
    )


def hit(owner: RecipientId = MEADOW, starts: date | None = None, ends: date | None = None) -> PanelHit:
    return PanelHit(owner, "STJ", starts, ends)


def ledger_row(ruling: Ruling, decision: RoutingDecision, patient_id: PatientId) -> LedgerRow:
    """A ruling's decision as the ledger reads it again."""
    return LedgerRow(
        recipient_id=RecipientId(decision.recipient_id or ""),
        fact_kind=decision.fact_kind,
        occurrence=decision.occurrence,
        watched=decision.watched,
        basis=decision.basis,
        reason=decision.reason,
        status=ruling.status,
        level=ruling.level,
        patient_id=patient_id,
        notice_id=decision.notice_id,
    )


class Desk:
    """The decision and notice tables in memory, for one encounter: what is ruled is remembered and can be delivered."""

    def __init__(self, directory: Directory = DIRECTORY, policy: RoutePolicy = POLICY) -> None:
        self.directory, self.policy = directory, policy
        self.rows: list[LedgerRow] = []
        self.notices: dict[UUID, Notice] = {}
        self.states: dict[UUID, tuple[NoticeState, bool]] = {}
        self.order: list[UUID] = []

    def route(self, encounter: TrackedEncounter, *hits: PanelHit, now: datetime = NOW) -> list[Ruling]:
        matches = match(encounter, hits, self.directory, self.policy.facilities)
        rulings = decide(encounter, matches, self.ledger(), self.directory, self.policy, now)
        for ruling in rulings:
            self._keep(encounter, ruling)
        return rulings

    def ledger(self) -> Ledger:
        """As PostgreSQL joins it: every decision with where its notice stands now."""
        joined = []
        for row in self.rows:
            if row.notice_id is not None:
                state, possibly_told = self.states[row.notice_id]
                body = msgspec.json.encode(self.notices[row.notice_id])
                row = msgspec.structs.replace(row, state=state, possibly_told=possibly_told, body=body)
            joined.append(row)
        return fold(joined)

    def _keep(self, encounter: TrackedEncounter, ruling: Ruling) -> None:
        if ruling.drop is not None:
            state, told = self.states[ruling.drop.notice_id]
            assert state in (NoticeState.QUEUED, NoticeState.FAILED)
            assert not told
            self.states[ruling.drop.notice_id] = NoticeState.SUPERSEDED, False
        if ruling.notice is not None:
            assert ruling.notice.notice_id not in self.notices, "a notice id was made twice"
            self.notices[ruling.notice.notice_id] = ruling.notice
            self.states[ruling.notice.notice_id] = NoticeState.QUEUED, False
            self.order.append(ruling.notice.notice_id)
        decision = ruling.decision
        if decision is not None:
            self.rows.append(ledger_row(ruling, decision, encounter.patient_id))
        if ruling.replaces is not None:
            state, told = self.states[ruling.replaces]
            if state in (NoticeState.QUEUED, NoticeState.FAILED):
                self.states[ruling.replaces] = NoticeState.SUPERSEDED, told

    def deliver(self, *, state: NoticeState = NoticeState.DELIVERED, possibly_told: bool = True) -> None:
        """What waits has been sent."""
        for notice_id, (known, _) in self.states.items():
            if known is NoticeState.QUEUED:
                self.states[notice_id] = state, possibly_told

    def sent(self, owner: RecipientId | None = None) -> list[tuple[RecipientId, TransitionStatus, TransitionKind]]:
        """Everything that left or will leave, in order."""
        gone = (NoticeState.SUPERSEDED, NoticeState.CANCELLED)
        return [
            (notice.recipient_id, notice.status, notice.kind)
            for notice in (self.notices[notice_id] for notice_id in self.order)
            if (owner is None or notice.recipient_id == owner)
            and (self.states[notice.notice_id][0] not in gone or self.states[notice.notice_id][1])
        ]


def reasons(rulings: Iterable[Ruling]) -> dict[tuple[str, TransitionKind], str]:
    """Why whom is not told what."""
    return {
        (ruling.key[0], ruling.key[1]): ruling.decision.reason.value
        for ruling in rulings
        if ruling.decision is not None and ruling.decision.reason is not None
    }


def told(rulings: Iterable[Ruling]) -> list[tuple[RecipientId, TransitionStatus, TransitionKind]]:
    """Who is told what."""
    return [(r.notice.recipient_id, r.notice.status, r.notice.kind) for r in rulings if r.notice is not None]


def notice_of(rulings: Iterable[Ruling], owner: RecipientId) -> Notice:
    """The one notice for `owner`."""
    (found,) = [r.notice for r in rulings if r.notice is not None and r.notice.recipient_id == owner]
    return found
