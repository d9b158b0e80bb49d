"""Property of a connection: whatever bytes come, each message is taken once and answered once, in order, or the
connection ends before it. Messages finish in any order, and storage may fail."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.properties.searching import examples
from tocengine.adapters.mllp.session import Arrival, Session
from tocengine.formats.mllp import COMMITTED, NOT_COMMITTED, Broken, Frame, FrameReader, frame

LIMIT, IN_FLIGHT = 200, 3
PAYLOADS = st.binary(max_size=40).map(lambda tail: b"MSH|" + tail.replace(b"\x1c", b"\x1d").replace(b"\x0b", b"\x0c"))
NOISE = st.lists(
    st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"\x0bMSH|", b"MSH|", b"x", b"\n"]) | st.binary(max_size=3),
    max_size=6,
).map(b"".join)


class Conversation(RuleBasedStateMachine):
    """A sender and a store around a session; a second reader of the same bytes, unsplit, says what is owed."""

    @initialize(commit_blocks=st.booleans())
    def begin(self, commit_blocks: bool) -> None:
        """A fresh connection."""
        self.commit_blocks = commit_blocks
        self.session = Session(LIMIT, IN_FLIGHT, commit_blocks=commit_blocks)
        self.sent = b""
        self.unread = b""
        self.begun: list[Arrival] = []
        self.open: dict[int, Arrival] = {}
        self.written = b""
        self.failed: int | None = None

    @rule(payload=PAYLOADS)
    def orderly(self, payload: bytes) -> None:
        """A message as it should be."""
        self.unread += frame(payload)

    @rule(noise=NOISE)
    def disorderly(self, noise: bytes) -> None:
        """Anything."""
        self.unread += noise

    @rule(size=st.integers(1, 60))
    def read(self, size: int) -> None:
        """The network brings some of it, if the session wants it."""
        if self.session.wants_data:
            part, self.unread = self.unread[:size], self.unread[size:]
            self.sent += part
            self.session.receive(part)
            self.start()

    def start(self) -> None:
        """Begins what may begin."""
        for arrival in self.session.start():
            self.begun.append(arrival)
            self.open[arrival.number] = arrival

    @precondition(lambda self: bool(getattr(self, "open", None)))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Some message becomes durable."""
        self.settle(data.draw(st.sampled_from(sorted(self.open))))

    @precondition(lambda self: bool(getattr(self, "open", None)) and self.failed is None)
    @rule(data=st.data(), really=st.integers(0, 9))
    def fail(self, data: st.DataObject, really: int) -> None:
        """Now and then one cannot be stored."""
        if really == 0:
            number = data.draw(st.sampled_from(sorted(self.open)))
            self.open.pop(number)
            self.session.not_stored(number)
            self.failed = number
            self.write()

    def settle(self, number: int) -> None:
        """Answers one and goes on."""
        self.open.pop(number)
        self.session.answered(number, b"answer %d" % number)
        self.write()

    def write(self) -> None:
        """What may be written is written, and what may begin begins."""
        self.written += self.session.to_write()
        self.start()

    @invariant()
    def bounded(self) -> None:
        """No more than allowed is under way."""
        if hasattr(self, "open"):
            assert len(self.open) <= IN_FLIGHT

    @invariant()
    def begun_is_what_was_sent(self) -> None:
        """What was begun is the beginning of what an unsplit reading of the same bytes finds."""
        if hasattr(self, "sent"):
            items = [item for item in FrameReader(LIMIT).receive(self.sent) if not hasattr(item, "size")]
            owed = [item for item in items if item.payload not in (COMMITTED, NOT_COMMITTED)]
            assert [arrival.item for arrival in self.begun] == owed[: len(self.begun)]
            assert [arrival.number for arrival in self.begun] == list(range(len(self.begun)))

    def teardown(self) -> None:
        """In the end everything received is answered once and in order, up to what could not be stored."""
        if not hasattr(self, "open"):
            return
        self.session.end(Broken.CUT_OFF)
        self.start()
        while self.open:
            self.settle(min(self.open))
        self.write()
        expected = b""
        for arrival in self.begun[: self.failed]:
            answer = frame(b"answer %d" % arrival.number)
            if self.commit_blocks:
                answer = frame(COMMITTED) + answer if isinstance(arrival.item, Frame) else frame(NOT_COMMITTED)
            expected += answer
        if self.failed is not None and self.commit_blocks:
            expected += frame(NOT_COMMITTED)
        assert self.written == expected
        assert self.session.finished
        if self.failed is None:
            assert self.session.held_bytes == 0
            reader = FrameReader(LIMIT)
            items = reader.receive(self.sent) + reader.end(Broken.CUT_OFF)
            owed = [item for item in items if not hasattr(item, "size")]
            assert len(self.begun) == len([item for item in owed if item.payload not in (COMMITTED, NOT_COMMITTED)])


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)
