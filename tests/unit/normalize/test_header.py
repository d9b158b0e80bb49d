"""MSH and EVN: trigger, clocks, processing, sequence."""

from datetime import UTC, datetime

import pytest

from tests.fixtures.adt import EVN, PID, RECEIVED, adt, event, movement, pv1, resources
from tocengine.errors import ContentError, UnsupportedError
from tocengine.model.event import Processing
from tocengine.model.profile import SourceProfile

NEW_YORK = SourceProfile()


def _evn(**fields: str) -> str:
    return f"EVN|{fields.get('code', '')}|{fields.get('recorded', '')}||||{fields.get('occurred', '')}"


def test_the_trigger_of_msh_wins_and_a_difference_is_flagged() -> None:
    told = event(movement("A03", evn=_evn(code="A08", recorded="20260301154100-0500")))
    assert told.trigger == "A03"
    assert "trigger_mismatch" in told.flags


def test_evn_1_names_the_trigger_where_msh_does_not() -> None:
    msh = "MSH|^~\\&|EPICADT|STJ|C|D|20260301154102-0500||ADT|{control}|P|2.3"
    assert event(adt("", _evn(code="A04"), PID, pv1(), msh=msh)).trigger == "A04"
    with pytest.raises(ContentError) as refused:
        event(adt("", _evn(), PID, pv1(), msh=msh))
    assert (refused.value.problem.location, refused.value.problem.code) == ("MSH^1^9^1^2", "101")


def test_another_message_type_is_unsupported() -> None:
    with pytest.raises(UnsupportedError) as refused:
        event(movement("A03").replace(b"ADT^A03", b"ORU^R01"))
    assert refused.value.problem.code == "200"


def test_recorded_is_evn_2_else_msh_7_else_receipt() -> None:
    assert event(movement("A03", evn=_evn(recorded="20260301120000-0500"))).recorded.text.startswith("2026-03-01T12:00")
    assert event(movement("A03", evn=_evn())).recorded.text == "2026-03-01T15:41:02-05:00"
    untrusted = SourceProfile(trust_evn2=False)
    assert event(movement("A03", evn=_evn(recorded="20260301120000-0500")), untrusted).recorded.text.startswith(
        "2026-03-01T15:41:02"
    )
    bare = movement("A03", evn=_evn()).replace(b"20260301154102-0500", b"")
    assert event(bare).recorded.at == datetime(2026, 3, 1, 20, 41, 5, tzinfo=UTC)
    assert event(bare).message_day == "2026-03-01"


def test_a_clock_far_ahead_counts_as_received() -> None:
    told = event(
        movement("A03", evn=_evn(recorded="20260401120000-0500")).replace(b"20260301154102", b"20260401154102")
    )
    assert told.recorded.at == told.received_at
    assert "clock_ahead" in told.flags


def test_an_unreadable_time_is_flagged_and_the_next_one_taken() -> None:
    told = event(movement("A03", evn=_evn(recorded="20261399")))
    assert "unreadable:EVN-2" in told.flags
    assert told.recorded.text == "2026-03-01T15:41:02-05:00"


@pytest.mark.parametrize(
    ("trigger", "occurred", "effective"),
    [
        ("A03", "20260301153000-0500", "2026-03-01T15:30:00-05:00"),
        ("A03", "", "2026-03-01T15:00:00-05:00"),  # PV1-45
        ("A01", "", "2026-02-26T10:15:00-05:00"),  # PV1-44
        ("A04", "", "2026-02-26T10:15:00-05:00"),
        ("A06", "", None),  # never PV1-44: that is the arrival in the ED
        ("A13", "", None),
        ("A11", "20260226101500-0500", "2026-02-26T10:15:00-05:00"),  # the cancelled event's time
    ],
)
def test_effective_is_what_the_message_states(trigger: str, occurred: str, effective: str | None) -> None:
    times = {44: "20260226101500-0500", 45: "20260301150000-0500"}
    told = event(movement(trigger, times, evn=_evn(recorded="20260301154100-0500", occurred=occurred)))
    assert (told.effective.text if told.effective else None) == effective


@pytest.mark.parametrize(
    ("stated", "created", "text", "assumed"),
    [
        ("20261101013000", "20261101013105-0500", "2026-11-01T01:30:00-05:00", True),  # the second 01:30
        ("20260308023000", "20260308033105-0400", "2026-03-08T03:30:00-04:00", True),  # an hour nobody has
        ("20260301150000", "20260301150105-0500", "2026-03-01T15:00:00-05:00", False),
    ],
)
def test_daylight_saving(stated: str, created: str, text: str, assumed: bool) -> None:
    body = movement("A03", evn=_evn(occurred=stated)).replace(b"20260301154102-0500", created.encode())
    told = event(body)
    assert told.effective is not None
    assert told.effective.text == text
    assert ("tz_assumed" in told.flags) is assumed


@pytest.mark.parametrize(
    ("mode", "processing"),
    [
        ("P", Processing.PRODUCTION),
        ("", Processing.PRODUCTION),
        ("T", Processing.TEST),
        ("D", Processing.TEST),
        ("P^I", Processing.INITIAL_LOAD),
        ("P^A", Processing.INITIAL_LOAD),
        ("P^R", Processing.INITIAL_LOAD),
        ("P^T", Processing.PRODUCTION),
    ],
)
def test_processing(mode: str, processing: Processing) -> None:
    assert event(movement("A08").replace(b"|P|2.5.1", f"|{mode}|2.5.1".encode())).processing is processing


def test_a_test_patient_on_a_production_feed_is_a_test() -> None:
    body = movement("A01", pid="PID|1||5^^^STJ^MR||ZZTEST^ONE")
    assert event(body).processing is Processing.TEST
    assert event(body, SourceProfile(test_patient_patterns=())).processing is Processing.PRODUCTION


def test_sequence_and_shadow_and_flags_of_the_encoding() -> None:
    body = movement("A08").replace(b"|P|2.5.1", b"|P|2.5.1|12|||||UNICODE UTF-8").replace(b"HELENA", b"HEL\xc9NA")
    told = event(body)
    assert told.sequence == 12
    assert "charset_mismatch" in told.flags


def test_an_unhandled_trigger_is_kept_and_marked() -> None:
    told = event(adt("A19", EVN, PID, pv1()))
    assert not told.handled
    assert told.patient is not None
    assert told.visit is not None
    assert event(adt("A99", EVN)).handled is False


def test_the_content_says_who_said_it_when_and_under_which_number() -> None:
    (said,) = resources(movement("A03", {36: "03"}), "Provenance")
    (visit,) = resources(movement("A03", {36: "03"}), "Encounter")
    assert said["target"] == [{"reference": f"urn:uuid:{visit['id']}"}]
    assert (said["occurredDateTime"], said["recorded"]) == ("2026-03-01T15:35:00-05:00", "2026-03-01T15:41:00-05:00")
    assert said["activity"]["coding"][0]["code"] == "A03"
    assert said["entity"][0]["what"]["identifier"] == {"system": "urn:tocengine:feed:stj-adt:control-id", "value": "1"}
    (facility,) = [each for each in resources(movement("A03"), "Organization") if each["name"] == "STJ Hospital"]
    assert said["agent"][0]["who"] == {"reference": f"urn:uuid:{facility['id']}"}


def test_what_is_said_of_a_person_alone_has_its_source_too() -> None:
    body = adt("A28", "EVN||20260301", PID)
    (said,) = resources(body, "Provenance")
    (patient,) = resources(body, "Patient")
    assert said["target"] == [{"reference": f"urn:uuid:{patient['id']}"}]
    assert said["recorded"] == RECEIVED.isoformat()  # a day is no instant
    assert "occurredDateTime" not in said
