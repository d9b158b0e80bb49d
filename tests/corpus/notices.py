"""Owns the notices the public corpus leads to: its messages, visit by visit, through the pure pipeline.

The messages are normalized, folded into encounters and overlaid to charts in the order they stand, and whatever that
would tell anybody is rendered at each disclosure level, as a partner would get it. So that as much as can be is told,
a message that is no ADT is read as an update, one without visit number gets one, and a test counts as production.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import product

import msgspec
import orjson

from tests.conformance.pair_files import as_adt
from tests.corpus.files import hl7v2_files
from tests.fixtures.adt import HOSPITAL, RECEIVED, received
from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL
from tests.fixtures.visits import DIRECTORY
from tocengine.encounters.fold import diff, fold
from tocengine.encounters.snapshots import snapshot_of
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.errors import RefusedError
from tocengine.formats.fhir.chart import overlay
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.resources import Json
from tocengine.formats.hl7v2.files import messages_in
from tocengine.model.directory import Level
from tocengine.model.encounter import Snapshot, Transition, TransitionStatus
from tocengine.model.event import EventRecord, Processing
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import FeedName, NoticeId, derive
from tocengine.model.notice import Basis, Notice
from tocengine.model.profile import Source, SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer

_NORMALIZER = HL7v2Normalizer(Source(feed=FeedName("corpus"), facility=HOSPITAL, profile=SourceProfile()))


class _Encounter:
    """One visit, as far as its messages were read."""

    def __init__(self, visit: VisitKey) -> None:
        self.visit = visit
        self.body = EncounterBody(folded=Folded(visit=visit))
        self.records: list[EventRecord] = []

    def tell(self, record: EventRecord, patient: PatientKey) -> tuple[Snapshot, tuple[Transition, ...]]:
        """What is known after `record`, and what it changes outwardly."""
        event = record.summary
        self.records = sorted([*self.records, record], key=lambda each: each.summary.order_key)
        folded = fold(self.visit, [each.summary for each in self.records])
        changed = diff(self.visit.encounter_id, self.body, folded, event, DIRECTORY)
        self.body = changed.body
        return snapshot_of(self.visit.encounter_id, self.visit, folded, event, patient), changed.transitions

    def chart(self) -> bytes:
        """The FHIR content of what was read, as it stands now."""
        return overlay([bytes(each.fhir) for each in self.records], [each.summary.cleared for each in self.records])


def corpus_notices() -> dict[str, bytes]:
    """The message Bundles, each once, by a name that says file, message, kind, status and level.

    A message is read alone with the others of its file, and once more after all that its source says before it, so
    that two files which use one visit number do not hide each other.
    """
    files = [(file, messages_in(file.path.read_bytes())) for file in hl7v2_files()]
    sources: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    found: dict[bytes, str] = {}
    for file, bodies in files:
        messages = [(f"{file.path.stem}.{number}", as_adt(body)[0]) for number, body in enumerate(bodies)]
        sources[file.source] += messages
        found |= {bundle: f"{file.source} {name}" for name, bundle in _notices_of(messages)}
    for source, messages in sources.items():
        for name, bundle in _notices_of(messages):
            found.setdefault(bundle, f"{source} {name} in order")
    return {name: bundle for bundle, name in found.items()}


def adt_messages() -> Iterator[tuple[str, bytes]]:
    """Every message, by file and number."""
    for file in hl7v2_files():
        for number, body in enumerate(messages_in(file.path.read_bytes())):
            yield f"{file.source} {file.path.stem}.{number}", as_adt(body)[0]


def corpus_events() -> dict[str, bytes]:
    """The content of each event, by file, message and part."""
    return {
        f"{name}.{part}": bytes(record.fhir)
        for name, body in adt_messages()
        for part, record in enumerate(records_of(body))
    }


def records_of(body: bytes) -> Sequence[EventRecord]:
    """The events of a message; none where it is refused."""
    try:
        return _NORMALIZER.normalize(received(body))
    except RefusedError:
        return ()


def _notices_of(messages: Sequence[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    encounters: dict[VisitKey, _Encounter] = {}
    for name, body in messages:
        for record in records_of(body):
            event = msgspec.structs.replace(record.summary, processing=Processing.PRODUCTION)
            if event.visit is None or event.patient is None or not event.handled or event.merges:
                continue
            encounter = encounters.setdefault(event.visit, _Encounter(event.visit))
            snapshot, transitions = encounter.tell(EventRecord(event, record.fhir), event.patient)
            for transition, level in product(transitions, Level):
                where = f"{name} {transition.status} {transition.kind} {level}"
                yield where, _rendered(snapshot, transition, encounter.chart(), level)


def _rendered(snapshot: Snapshot, transition: Transition, chart: bytes, level: Level) -> bytes:
    notice = Notice(
        notice_id=NoticeId(derive("notice", str(transition.transition_id), level)),
        recipient_id=SUNNYSIDE.recipient_id,
        encounter_id=transition.encounter_id,
        snapshot_id=snapshot.snapshot_id,
        kind=transition.kind,
        status=transition.status,
        fact_kind=transition.fact_kind,
        occurrence=transition.occurrence,
        level=level,
        basis=(Basis.DESTINATION,),
        effective=transition.effective.text,
        recorded=transition.recorded.text,
        message_id=transition.message_id,
        created_at=RECEIVED,
        expires_at=RECEIVED + timedelta(days=1),
        supersedes=None if transition.status is TransitionStatus.NEW else NoticeId(derive("notice", "earlier")),
    )
    return render_notification(notice, snapshot, chart, SUNNYSIDE, URL, ENGINE)


def representative(bundles: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of `bundles` that each show something which none before showed: an element, one of several, a code."""
    shown: set[str] = set()
    chosen = {}
    for name, bundle in bundles.items():
        shows = set(_shows(orjson.loads(bundle), ""))
        if not shows <= shown:
            shown |= shows
            chosen[name] = bundle
    return chosen


def _shows(value: Json, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _shows(item, f"{path}*" if len(value) > 1 else path)
    elif isinstance(value, dict):
        path += f"/{value['resourceType']}" if "resourceType" in value else ""
        if str(value.get("system", "")).startswith("http"):
            yield f"{path}={value['system']}|{value.get('code')}"
        for name, inner in value.items():
            yield from _shows(inner, f"{path}.{name}")
    else:
        yield path
