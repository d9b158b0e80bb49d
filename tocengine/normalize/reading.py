"""Owns the context in which rules read one message: its segments, feed, codes, and what they found so far.

A rule reads fields through it, adds resources, and raises flags; it holds no decision of its own except how a
field that is absent, deleted or unreadable is told apart.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, TypeVarTuple, cast
from zoneinfo import ZoneInfo

from msgspec import UNSET, UnsetType

from tocengine.errors import ContentError
from tocengine.formats.fhir.ids import facility_id
from tocengine.formats.fhir.resources import Resource, concept, local_system, reference
from tocengine.formats.fhir.resources import coding as fhir_coding
from tocengine.formats.hl7v2.datatypes import CX, HD
from tocengine.formats.hl7v2.parser import HL7Message
from tocengine.formats.hl7v2.segments import NULL, Field, Segment
from tocengine.formats.hl7v2.time import read_time
from tocengine.model.event import UnmappedCode
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.message import Message, Problem
from tocengine.model.profile import Source
from tocengine.model.remembering import LONGEST, length, remembered
from tocengine.model.time import Timestamp
from tocengine.normalize.codes import Codes, Trigger

Said = TypeVarTuple("Said")
Found = TypeVar("Found")
HIDDEN = "\ufffd"
"""What stands in a key for a sign that cannot be shown."""
KEPT_FINDINGS = 16_384
_NEW = object()
_KEPT_TIMES = 16_384
_times: dict[tuple[str, ZoneInfo], Timestamp] = {}
"""Times read before: births, admissions and one message's repeated clocks come again and again."""


class Reading:
    """One message about one patient, while its rules run."""

    __slots__ = (
        "_added",
        "_raised",
        "_whole",
        "cleared",
        "codes",
        "encounter",
        "encounter_id",
        "facility_id",
        "flags",
        "known",
        "message",
        "near",
        "patient",
        "patient_id",
        "patient_key",
        "resources",
        "row",
        "segment",
        "segments",
        "sender",
        "source",
        "trigger",
        "unmapped",
        "visit",
        "zone",
    )

    def __init__(
        self,
        message: Message,
        hl7: HL7Message,
        source: Source,
        codes: Codes,
        zone: ZoneInfo,
        segments: Mapping[str, Sequence[Segment]] | None = None,
        known: dict[Hashable, object] | None = None,
    ) -> None:
        self.message = message
        self.source = source
        self.codes = codes
        self.zone = zone
        self._whole = hl7
        part = hl7 if segments is None else _Part(segments, hl7)
        self.segment: Callable[[str], Segment] = part.segment  # bound here: each message asks forty times
        """The first segment of that name; a false one where there is none."""
        self.segments: Callable[[str], Sequence[Segment]] = part.segments
        """The segments of that name, in order."""
        self.known = known  # what `once` found in earlier messages of the feed; None where each is to be read anew
        self.flags: list[str] = list(hl7.flags)
        self.unmapped: list[UnmappedCode] = []
        self.cleared: list[str] = []
        self.resources: list[Resource] = []
        self._added: set[str] = set()
        self._raised = 0  # how often a flag was raised, also one that stood already
        self.facility_id = facility_id(source.facility.id)
        self.near: datetime = message.received_at
        self.trigger = ""
        self.row: Trigger | None = None
        self.patient_key: PatientKey | None = None
        self.visit: VisitKey | None = None
        self.patient: Resource = {}  # the Patient and Encounter being built
        self.encounter: Resource = {}
        self.patient_id = ""
        self.encounter_id = ""
        self.sender = ""

    # --- segments and fields ---------------------------------------------------------------------

    def ordered(self) -> Sequence[Segment]:
        """All segments in the order they came (of the whole message)."""
        return list(self._whole)

    def time(self, field: Field, path: str) -> Timestamp | UnsetType | None:
        """The time in `field`: UNSET where nothing (readable) was said, None where it was deleted."""
        if not field.raw:
            return UNSET
        text = field.component(1)
        return self.stated(text, path) if text else None if field.raw == NULL else UNSET

    def stated(self, text: str, path: str) -> Timestamp | UnsetType:
        """The time `text` states, UNSET and a flag where it is none."""
        known = _times.get((text, self.zone))
        if known is not None:
            return known
        try:
            found = read_time(text.strip(), self.zone, self.near)
        except ValueError:
            self.flag(f"unreadable:{path}")
            return UNSET
        if found is None:
            return UNSET
        if found.assumed:  # chosen by what is near: not the same in another message
            self.flag("tz_assumed")
        else:
            if len(_times) >= _KEPT_TIMES:
                _times.clear()
            _times[text, self.zone] = found
        return found

    def once(self, rule: Callable[["Reading", *Said], Found], *said: *Said) -> Found:
        """``rule(self, *said)``, or what it found when the same was said in an earlier message of the feed.

        For what comes again and again: doctors, places, payers, codes; never for patients. The rule sees nothing of
        the message but `said` (with its encoding and sender), adds no resource, and what it gives is never changed.
        If it raises a flag it is asked again each time, because a flag belongs to its message.
        """
        if self.known is None:
            return rule(self, *said)
        key = (rule, self._whole.coding, self.sender, said)
        found = self.known.get(key, _NEW)
        return self._learned(key, rule, *said) if found is _NEW else cast(Found, found)

    def once_of(self, rule: Callable[["Reading", Segment], Found], segment: Segment, *numbers: int) -> Found:
        """As `once`, of the fields of `segment` with these numbers: the rule sees no others."""
        if self.known is None:
            return rule(self, segment.only(numbers))
        key = (rule, self._whole.coding, self.sender, segment.name, segment.sent(numbers))
        found = self.known.get(key, _NEW)
        return self._learned(key, rule, segment.only(numbers)) if found is _NEW else cast(Found, found)

    def _learned(self, key: tuple[Hashable, ...], rule: Callable[["Reading", *Said], Found], *said: *Said) -> Found:
        raised = self._raised
        found = rule(self, *said)
        if self.known is not None and self._raised == raised and _short(key):
            if len(self.known) >= KEPT_FINDINGS:
                self.known.clear()
            self.known[key] = found
        return found

    def field(self, raw: str) -> Field:
        """A field, or one of its repetitions, from how it was sent."""
        return Field(raw, self._whole.coding)

    # --- what was found --------------------------------------------------------------------------

    def flag(self, name: str) -> None:
        """Marks something a person may want to know. Names fields, never values."""
        self._raised += 1
        if name not in self.flags:
            self.flags.append(name)

    def unknown_code(self, table: str, code: str, path: str) -> None:
        """Flags a code that has no row in `table`, and keeps it for whoever maps it: it is never guessed."""
        self.flag(f"unmapped:{path}")
        found = UnmappedCode.sent(table, code)
        if found not in self.unmapped:
            self.unmapped.append(found)

    def add(self, resource: Resource) -> Resource:
        """Puts a resource into the event's bundle, once; gives the Reference to it."""
        identity = str(resource["id"])
        if identity not in self._added:
            self._added.add(identity)
            self.resources.append(resource)
        return reference(identity)

    def holds(self, identity: str) -> bool:
        """Whether the event's bundle has a resource with that id, roots aside."""
        return identity in self._added

    def enrich(self, identity: str, content: Resource) -> None:
        """Lays `content` over the resource of the event's bundle with that id, where there is one. The resource itself
        may be shared with other messages and stays as it is."""
        for place, resource in enumerate(self.resources if identity in self._added else ()):
            if resource["id"] == identity:
                self.resources[place] = {**resource, **content}

    def local_concept(self, path: str, code: str, text: str = "") -> Resource:
        """A code that no table knows, in a system of the feed's own."""
        return concept(local_coding(self.message.feed, path, code), text=text)

    # --- identifier domains ----------------------------------------------------------------------

    def domain(self, authority: HD) -> str:
        """The configured name of an assigning authority, else what the message calls it; "" where it names none."""
        domains = self.source.domains
        for name in (authority.namespace, authority.universal_id):
            known = domains.get(name) if name else None
            if known is not None:
                return known.name
        return clean(authority.namespace or authority.universal_id)

    def own_domain(self) -> str:
        """The domain of patients and people without an authority: `mrn_authority` of the profile, else MSH-4."""
        return self._named_domain(self.source.profile.mrn_authority or self.sender)

    def visit_domain(self) -> str:
        """The domain of visits and accounts without an authority: MSH-4. Hospitals that share their patients' numbers
        count visits each for itself (domain 2.2)."""
        return self._named_domain(self.sender)

    def _named_domain(self, stated: str) -> str:
        named = stated or self.source.facility.id
        known = self.source.domains.get(named)
        return known.name if known is not None else named

    def key(self, sent: str, path: str) -> str:
        """`sent` as a key (`clean`); "" for a placeholder, which would make one of everybody who has it. Flags
        ``placeholder:PATH``, and ``unprintable:PATH`` where it has signs inside that nobody sees."""
        if not sent.isprintable() and not _trimmed(sent).isprintable():
            self.flag(f"unprintable:{path}")
        value = clean(sent)
        if self.codes.is_placeholder(value):
            self.flag(f"placeholder:{path}")
            return ""
        return value

    def visit_key(self, field: Field) -> VisitKey | None:
        """The visit a CX field names (leading zeros kept, blanks around it not)."""
        if not field:
            return None
        found = CX.read(field)
        value = self.key(found.value, "visit")
        return VisitKey(self.domain(found.authority) or self.visit_domain(), value) if value else None


class _Part:
    """What a message says of one of its patients, to be asked as a whole message is."""

    __slots__ = ("_hl7", "_segments")

    def __init__(self, segments: Mapping[str, Sequence[Segment]], hl7: HL7Message) -> None:
        self._segments = segments
        self._hl7 = hl7

    def segment(self, name: str) -> Segment:
        found = self._segments.get(name)
        return found[0] if found else Segment(name, "", 0, self._hl7.coding)

    def segments(self, name: str) -> Sequence[Segment]:
        return self._segments.get(name, ())


def _short(key: Hashable) -> bool:
    """Whether no text of `key` is too long to be remembered."""
    return all(map(_short, key)) if isinstance(key, tuple) else length(key) <= LONGEST


@remembered(4096)
def local_coding(feed: str, path: str, code: str) -> Resource:
    """A Coding in a system of the feed's own."""
    return fhir_coding(local_system("feed", feed, path), " ".join(code.split()))


def clean(value: str) -> str:
    """A key as it may be stored: without blanks and signs that nobody sees around it. One inside stays there, a blank
    of any kind as a blank, another as U+FFFD: without it two keys might become the same."""
    value = value.strip()
    if value.isprintable():
        return value if value != NULL else ""
    return "".join(" " if each.isspace() else each if each.isprintable() else HIDDEN for each in _trimmed(value))


def _trimmed(value: str) -> str:
    seen = [place for place, each in enumerate(value) if each.isprintable() and not each.isspace()]
    return value[seen[0] : seen[-1] + 1] if seen else ""


def refuse(reason: str, text: str, location: str, code: str = "101") -> ContentError:
    """What a message without `location` (ERL) is answered; `code` is of HL7 table 0357."""
    return ContentError(Problem(reason=reason, text=text, location=location, code=code))
