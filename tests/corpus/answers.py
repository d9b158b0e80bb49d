"""Owns what a stream of MLLP frames is owed: for each one answer, in order, or the silence its sender asked for.

Reads the stream by itself; nothing is taken from what the engine says it did.
"""

from collections.abc import Sequence

from tocengine.adapters.mllp.session import MAX_UNREADABLE
from tocengine.formats.hl7v2.ack import Verdict, code_for, read_sent
from tocengine.formats.hl7v2.batch import is_batch, read_remains
from tocengine.formats.mllp import Broken, Frame, FrameReader, Junk

LIMIT = 64 * 1024 * 1024


def bodies(stream: bytes) -> list[bytes]:
    """What stands in the whole frames of `stream`."""
    return [body for body, whole in _items(stream) if whole]


def frames(stream: bytes) -> int:
    """How many frames are owed an answer, broken ones too."""
    return len(_items(stream))


def faults(stream: bytes, answered: bytes) -> list[str]:
    """What is wrong with what came back for `stream`, by the number of the frame; empty where nothing is."""
    return _faults(_items(stream), bodies(answered), closes=True)


def _items(stream: bytes) -> list[tuple[bytes, bool]]:
    """Every frame, and what came of broken ones; True for a whole one."""
    reader = FrameReader(LIMIT)
    items = reader.receive(stream) + reader.end(Broken.CUT_OFF)
    return [(item.payload, isinstance(item, Frame)) for item in items if not isinstance(item, Junk)]


def _faults(sent: Sequence[tuple[bytes, bool]], answers: Sequence[bytes], *, closes: bool) -> list[str]:
    """With `closes`, three messages in a row without a control id end the connection: nothing is owed behind them."""
    found, left, unreadable = [], list(answers), 0
    for number, (body, whole) in enumerate(sent):
        if closes and unreadable >= MAX_UNREADABLE:
            break
        unreadable = 0 if is_batch(body) or read_sent(body).readable else unreadable + 1
        if left and _is_answer(left[0], body, whole=whole):
            del left[0]
        elif not _may_be_silent(body, whole=whole):
            found.append(f"frame {number}: not answered, or not in its turn")
    return [*found, f"{len(left)} answers too many"] if left else found


def _is_answer(answer: bytes, body: bytes, *, whole: bool) -> bool:
    """A batch is answered by a batch that holds the answers to its messages."""
    if whole and is_batch(body):
        messages = [(each, True) for each in read_remains(body).messages]
        return is_batch(answer) and not _faults(messages, read_remains(answer).messages, closes=False)
    said = answer.partition(b"\rMSA")[2].split(b"\r")[0].split(answer[3:4])
    code, control_id = (*said[1:3], b"", b"")[:2]
    sent = read_sent(body)
    return control_id == sent.control_id and code.decode() in {code_for(sent, verdict) for verdict in Verdict} - {""}


def _may_be_silent(body: bytes, *, whole: bool) -> bool:
    """Its sender asked for no answer, to success or to failure; or it is an answer itself."""
    if whole and is_batch(body):
        return False
    sent = read_sent(body)
    return any(not code_for(sent, verdict) for verdict in (Verdict if whole else (Verdict.REJECT,)))
