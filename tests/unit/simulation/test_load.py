"""A load's receiver takes nothing for granted, its figures count what went wrong, and its visits never meet."""

import base64
import hashlib
import hmac
from array import array
from collections import Counter

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tocengine.simulation.load.figures import Run, figures_of
from tocengine.simulation.load.receiver import RANK, REFUSED, TAKEN, Received, _Book
from tocengine.simulation.load.senders import Sent
from tocengine.simulation.load.target import Usage
from tocengine.simulation.load.visits import SIZES, Mix, Visits, facility_id, facility_index, number_of

SECRET = b"a secret of 24 octets..."
TAG = "ABCD"


def notice(number: int, **changed: str) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """A request that tells of the discharge of a visit, signed."""
    told = {"notice_id": f"n-{number}", "kind": "INPATIENT_DISCHARGE", "status": "NEW", "level": "FULL", **changed}
    body = orjson.dumps({"data": {**told, "encounter": {"visit_number": f"V{TAG}{number:08d}"}}})
    headers = {b"webhook-id": told["notice_id"].encode(), b"webhook-timestamp": b"1"}
    signed = b".".join((headers[b"webhook-id"], b"1", body))
    headers[b"webhook-signature"] = b"v1," + base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256))
    return f"/webhook/{facility_id(facility_index(number))}".encode(), headers, body


def test_a_notice_is_taken_and_one_that_comes_again_is_counted_as_such() -> None:
    book = _Book(5, SECRET, TAG)
    assert [book.take(*notice(number)) for number in (0, 3, 3)] == [TAKEN] * 3
    assert (book.received.taken, book.received.duplicated, book.received.reordered) == (2, 1, 0)
    assert [number for number, at in enumerate(book.received.arrived) if at] == [0, 3]


def test_what_is_not_as_it_should_be_is_refused_with_its_reason() -> None:
    path, headers, body = notice(1)
    wrong = {
        "signature": (path, {**headers, b"webhook-timestamp": b"2"}, body),
        "recipient": (b"/webhook/bench-09", headers, body),
        "envelope": notice(1, level="COP_MIN"),
        "CANCELLED DISCHARGE_CANCELLED": notice(1, kind="DISCHARGE_CANCELLED", status="CANCELLED"),
        "another load": notice(99),
    }
    for reason, request in wrong.items():
        book = _Book(5, SECRET, TAG)
        assert book.take(*request) == REFUSED
        assert book.received.refused == Counter({reason: 1})
    assert _Book(5, SECRET, "WXYZ").take(*notice(1)) == REFUSED


def test_an_admission_after_its_discharge_is_out_of_order() -> None:
    book = _Book(5, SECRET, TAG)
    book.take(*notice(1))
    book.take(*notice(1, kind=next(iter(RANK))))
    assert book.received.reordered == 1


def test_lost_visits_are_counted_and_held_ones_are_in_no_latency() -> None:
    mix = Mix(tag=TAG, told_every=2, early_every=4)
    arrived = array("d", [9.0, 0.0, 1.5, 0.0, 9.0, 0.0, 0.0, 0.0])  # 6 is lost; 0 and 4 came early
    sent = Sent(due=array("d", [1.0] * 8), answered=array("d", [1.01] * 7 + [1.1]), answers=Counter(AA=8))
    used = Usage(engine={"ingest": 0.004, "route": 0.004}, postgres=0.008, kafka=None)
    received = Received(arrived=arrived, duplicated=1)
    figures = figures_of(
        Run(first=0, last=8, sent=sent, received=received, used=used, peak_mb=90.0, grown_bytes=800), mix
    )
    assert (figures.lost, figures.duplicated, figures.held, figures.exact) == (1, 1, 2, False)
    assert (figures.e2e_max_ms, figures.ack_p50_ms, figures.ack_max_ms) == (500.0, 10.0, 100.0)
    assert (figures.cpu_s_per_1000, figures.postgres_cpu_s_per_1000) == (2.0, 1.0)
    assert figures.kafka_cpu_s_per_1000 is None
    assert figures.bytes_per_message == 100


@given(st.integers(0, 99_999_999), st.sampled_from(sorted(SIZES)), st.booleans())
def test_a_visit_has_its_own_number_and_is_about_as_large_as_asked(number: int, size: str, bundles: bool) -> None:
    visits = PREPARED[size, bundles]
    admission, discharge = visits.admission(number), visits.discharge(number)
    mark = f"{TAG}{number:08d}".encode()
    assert mark in admission
    assert mark in discharge
    assert number_of(f"V{mark.decode()}") == number
    assert abs(len(admission) - SIZES[size]) < 150
    if bundles:
        assert orjson.loads(discharge)["id"] == f"{TAG}-{number:08d}"


PREPARED = {
    (size, bundles): Visits(Mix(tag=TAG, size=SIZES[size], bundles=bundles))
    for size in SIZES
    for bundles in (False, True)
}
