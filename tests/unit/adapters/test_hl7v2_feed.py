"""The identity of a transmission, and what a feed says of broken frames."""

from collections.abc import Collection, Hashable, Sequence
from datetime import UTC, datetime

from tocengine.adapters.hl7v2_feed import HL7Feed, message_id
from tocengine.errors import RefusedError, UnavailableError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.ack import read_sent
from tocengine.formats.mllp import Broken, BrokenFrame
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.message import MAX_CONTROL_ID, Disposition, Message, Receipt
from tocengine.model.profile import SendingFacility, Source, SourceProfile
from tocengine.telemetry import Metrics

BODY = b"MSH|^~\\&|REG|NORTH|TOC|HUB|20260301154102||ADT^A01|77|P|2.5.1\rPID|1\r"
SOURCE = Source(
    feed=FeedName("north-adt"),
    facility=SendingFacility(id=FacilityId("north"), name="North"),
    profile=SourceProfile(),
)


class RecordingIntake:
    """Notes what it is given; `down` makes it unavailable."""

    def __init__(self, *, down: bool = False) -> None:
        self.messages: list[tuple[Message, str]] = []
        self.down = down

    async def turn(self, message: Message) -> None:
        return

    async def accept(self, message: Message, line: Hashable = None) -> Receipt:
        self.messages.append((message, ""))
        return Receipt(message_id=message.message_id, disposition=Disposition.ACCEPTED, answered=message.answers[0])

    async def accept_whole(self, messages: Sequence[Message], ignored: Collection[int] = ()) -> Sequence[Receipt]:
        return [await (self.ignore if n in ignored else self.accept)(each) for n, each in enumerate(messages)]

    async def ignore(self, message: Message, line: Hashable = None) -> Receipt:
        self.messages.append((message, "ignored"))
        return Receipt(message_id=message.message_id, disposition=Disposition.IGNORED, answered=message.answers[0])

    async def refuse(self, message: Message, error: RefusedError, line: Hashable = None) -> Receipt:
        if self.down:
            raise UnavailableError("down")
        self.messages.append((message, error.problem.reason))
        return Receipt(
            message_id=message.message_id,
            disposition=Disposition.REFUSED,
            problem=error.problem,
            answered=message.answers[2],
        )


def _feed(intake: RecordingIntake) -> HL7Feed:
    return HL7Feed(SOURCE, intake, lambda: datetime(2026, 3, 1, 20, 41, tzinfo=UTC), Metrics())


def test_the_same_transmission_has_the_same_id_and_no_other_has() -> None:
    def identity(body: bytes, feed: str = "north-adt") -> object:
        return message_id(feed, read_sent(body), body)

    assert identity(BODY) == identity(bytes(BODY))
    others = [BODY.replace(b"77", b"78"), BODY.replace(b"REG", b"REX"), BODY.replace(b"4102", b"4103"), BODY + b"\r"]
    assert len({identity(BODY), identity(BODY, "south-adt"), *map(identity, others)}) == 6


async def test_a_message_carries_what_is_known_before_it_is_read() -> None:
    intake = RecordingIntake()
    answer = await _feed(intake).take(BODY, "10.0.0.7")
    [(message, _)] = intake.messages
    assert (message.control_id, message.facility, message.peer) == ("77", "north", "10.0.0.7")
    assert message.answers == ("AA", "AE", "AR")
    assert message.body == BODY
    assert answer.body is not None
    assert hl7v2.parse(answer.body).get("MSA-2") == "77"


async def test_a_control_id_without_end_is_answered_whole_and_kept_in_part() -> None:
    intake = RecordingIntake()
    endless = "7" * 10_000
    answer = await _feed(intake).take(BODY.replace(b"|77|", f"|{endless}|".encode()))
    assert intake.messages[0][0].control_id == endless[:MAX_CONTROL_ID]
    assert answer.body is not None
    assert hl7v2.parse(answer.body).get("MSA-2") == endless


async def test_own_control_ids_differ() -> None:
    feed = _feed(RecordingIntake())
    bodies = [(await feed.take(BODY)).body for _ in range(3)]
    assert len({hl7v2.parse(body).get("MSH-10") for body in bodies if body}) == 3


async def test_a_broken_frame_is_kept_and_rejected() -> None:
    intake = RecordingIntake()
    answer = await _feed(intake).take_broken(BrokenFrame(BODY[:80], Broken.END_MISSING))
    assert intake.messages[0][1] == "frame_end_missing"
    assert answer.body is not None
    assert hl7v2.parse(answer.body).get("MSA-1") == "AR"


async def test_a_broken_frame_is_rejected_even_if_it_cannot_be_kept() -> None:
    answer = await _feed(RecordingIntake(down=True)).take_broken(BrokenFrame(BODY, Broken.TIMED_OUT))
    assert answer.body is not None


async def test_an_empty_frame_is_rejected_and_not_kept() -> None:
    intake = RecordingIntake()
    answer = await _feed(intake).take_broken(BrokenFrame(b"", Broken.EMPTY))
    assert intake.messages == []
    assert answer.body is not None
    assert not answer.readable
