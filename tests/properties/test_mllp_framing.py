"""Properties of MLLP framing: no split of the bytes loses, merges or invents a message."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.properties.searching import examples
from tocengine.formats.mllp import KEPT_OF_OVERSIZE, Broken, BrokenFrame, Frame, FrameReader, Item, Junk, frame

LIMIT = 60
# Streams made of what matters to framing are far more telling than random bytes.
PIECES = st.sampled_from(
    [
        b"\x0b",
        b"\x1c",
        b"\r",
        b"\x1c\r",
        b"\x0bMSH|",
        b"\x0bFHS|",
        b"MSH",
        b"MS",
        b"M",
        b"SH",
        b"B",
        b"BHS",
        b"\n",
        b" ",
        b"x",
        b"y" * 30,
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=4), max_size=30).map(b"".join)


def _read(pieces: list[bytes], *, ended: bool = True) -> list[Item]:
    reader = FrameReader(LIMIT)
    items: list[Item] = []
    for piece in pieces:
        items += reader.receive(piece)
    return items + (reader.end(Broken.CUT_OFF) if ended else [])


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[first:last] for first, last in pairwise(places)]


@settings(max_examples=examples(600))
@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_gives_the_same_items(stream: bytes, cuts: list[int]) -> None:
    whole = _read([stream])
    assert _read(_split(stream, cuts)) == whole
    assert _read([stream[n : n + 1] for n in range(len(stream))]) == whole


@settings(max_examples=examples(300))
@given(STREAMS)
def test_nothing_is_invented(stream: bytes) -> None:
    size = 0
    for item in _read([stream]):
        if isinstance(item, Junk):
            size += item.size
            continue
        assert item.payload in stream
        assert len(item.payload) <= max(LIMIT, KEPT_OF_OVERSIZE)
        size += len(item.payload)
    assert size <= len(stream)


# A payload has no frame end in it, and what looks like the start of a message behind a 0x0B is a new frame.
PAYLOADS = st.binary(min_size=1, max_size=LIMIT - 4).map(
    lambda tail: b"MSH|" + tail.replace(b"\x1c", b"\x1d").replace(b"\x0b", b"\x0c")
)


@given(st.lists(st.tuples(PAYLOADS, st.sampled_from([b"", b"\r\n", b"  ", b"\n"])), max_size=12), st.integers(1, 50))
def test_every_message_of_an_orderly_stream_arrives_once(sent: list[tuple[bytes, bytes]], step: int) -> None:
    stream = b"".join(frame(payload) + between for payload, between in sent)
    pieces = [stream[n : n + step] for n in range(0, len(stream), step)]
    assert _read(pieces) == [Frame(payload) for payload, _ in sent]


@given(
    st.binary(max_size=20).map(lambda head: b"MSH|" + head.replace(b"\x1c", b"\x1d").replace(b"\x0b", b"\x0c")),
    st.lists(st.binary(max_size=4) | st.sampled_from([b"\x0b", b"\x0bM", b"\x0bMSA"]), max_size=6).map(
        lambda rest: b"y" + b"".join(rest).replace(b"\x1c", b"\x1d") + b"y"
    ),
    st.integers(1, 30),
)
def test_a_frame_that_silence_ended_too_early_loses_nothing(head: bytes, rest: bytes, step: int) -> None:
    """Its 0x1C was data and the sender paused behind it: the rest is kept in one piece, whatever 0x0B is in it, and the
    next message is whole."""
    reader = FrameReader(LIMIT)
    items = [*reader.receive(b"\x0b" + head + b"\x1c"), *reader.settle()]
    stream = rest + b"\x1c\r" + frame(b"MSH|next")
    for place in range(0, len(stream), step):
        items += reader.receive(stream[place : place + step])
    assert items == [Frame(head), BrokenFrame(rest, Broken.AFTER_END), Frame(b"MSH|next")]


class Sender(RuleBasedStateMachine):
    """A sender that mixes good and broken frames, cut into reads anywhere, against what must come out."""

    @initialize()
    def begin(self) -> None:
        """A fresh connection."""
        self.reader = FrameReader(LIMIT)
        self.unsent = b""
        self.expected: list[Item] = []
        self.got: list[Item] = []
        self.open_payload: bytes | None = None

    def _queue(self, data: bytes) -> None:
        self.unsent += data

    def _start(self) -> None:
        if self.open_payload is not None:
            self.expected.append(BrokenFrame(self.open_payload, Broken.END_MISSING))
            self.open_payload = None

    @rule(payload=PAYLOADS)
    def whole_frame(self, payload: bytes) -> None:
        """An orderly message."""
        self._start()
        self._queue(frame(payload))
        self.expected.append(Frame(payload))

    @rule(payload=PAYLOADS)
    def frame_without_return(self, payload: bytes) -> None:
        """The final CR is missing and the next frame follows at once."""
        self._start()
        self._queue(b"\x0b" + payload + b"\x1c" + frame(b"MSH|next"))
        self.expected += [Frame(payload), Frame(b"MSH|next")]

    @rule(payload=PAYLOADS)
    def frame_without_end(self, payload: bytes) -> None:
        """The end never comes."""
        self._start()
        self._queue(b"\x0b" + payload)
        self.open_payload = payload

    @rule()
    def blank_lines(self) -> None:
        """Padding between frames."""
        if self.open_payload is None:
            self._queue(b"\r\n")

    @rule(control=st.sampled_from([b"\x1cA", b"\x0bA", b"\x0bMSA"]))
    def control_bytes_as_data(self, control: bytes) -> None:
        """0x1C and 0x0B inside a payload."""
        self._start()
        payload = b"MSH|" + control + b"|"
        self._queue(frame(payload))
        self.expected.append(Frame(payload))

    @rule(size=st.integers(1, 40))
    def arrive(self, size: int) -> None:
        """Some of the bytes reach the reader."""
        self.got += self.reader.receive(self.unsent[:size])
        self.unsent = self.unsent[size:]

    @invariant()
    def a_prefix_came_out(self) -> None:
        """What came out so far is the beginning of what was sent."""
        if hasattr(self, "got"):
            assert self.got == self.expected[: len(self.got)]

    def teardown(self) -> None:
        """In the end everything came out."""
        if not hasattr(self, "got"):
            return
        self.got += self.reader.receive(self.unsent)
        self.got += self.reader.end(Broken.CUT_OFF)
        if self.open_payload is not None:
            self.expected.append(BrokenFrame(self.open_payload, Broken.CUT_OFF))
        assert self.got == self.expected


TestSender = Sender.TestCase
TestSender.settings = settings(max_examples=examples(150), stateful_step_count=25, deadline=None)
