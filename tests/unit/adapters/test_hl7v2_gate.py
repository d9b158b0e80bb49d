"""Which feed of a listener a message belongs to, and who is turned away."""

from pathlib import Path

import msgspec
import pytest

from tests.unit.adapters.test_hl7v2_feed import BODY, SOURCE
from tocengine.adapters.hl7v2_gate import Gate
from tocengine.config_file import load_config
from tocengine.errors import ConfigurationError, UnsupportedError
from tocengine.formats.hl7v2.ack import read_sent
from tocengine.model.ids import FeedName
from tocengine.model.profile import SenderMatch, Source, SourceProfile


def feed(name: str, msh3: str = "", msh4: str = "") -> Source:
    profile = SourceProfile(match=SenderMatch(msh3=msh3, msh4=msh4))
    return msgspec.structs.replace(SOURCE, feed=FeedName(name), profile=profile)


def admitted(gate: Gate, body: bytes) -> tuple[str, str]:
    """The feed's name and the reason of refusal."""
    source, refusal = gate.admit(body, read_sent(body))
    return source.feed, refusal.problem.reason if refusal else ""


def test_the_feed_that_names_the_most_of_the_sender_takes_a_message() -> None:
    gate = Gate([feed("any"), feed("north", msh4="NORTH"), feed("reg-north", "REG", "NORTH"), feed("lab", "LAB")])
    assert admitted(gate, BODY) == ("reg-north", "")
    assert admitted(gate, BODY.replace(b"|REG|", b"|ADM|")) == ("north", "")
    assert admitted(gate, BODY.replace(b"|REG|NORTH|", b"|LAB^x|EAST|")) == ("lab", "")
    assert admitted(gate, BODY.replace(b"|NORTH|", b"|SOUTH|")) == ("any", "")


def test_a_sender_nobody_knows_is_refused_and_not_guessed() -> None:
    gate = Gate([feed("north", msh4="NORTH"), feed("south", msh4="SOUTH")])
    body = BODY.replace(b"|NORTH|", b"|EAST|")
    source, refusal = gate.admit(body, read_sent(body))
    assert isinstance(refusal, UnsupportedError)
    assert (source.feed, refusal.ack_code, refusal.problem.location) == ("north", "AR", "MSH^1^4")


def test_what_the_right_feed_does_not_take_is_refused_in_its_name() -> None:
    gate = Gate([feed("north", msh4="NORTH"), feed("south", msh4="SOUTH")])
    assert admitted(gate, BODY.replace(b"|NORTH|", b"|SOUTH|").replace(b"ADT^A01", b"ORU^R01")) == (
        "south",
        "message_type",
    )


SHARED = """
[[facilities]]
id = "stj"
name = "STJ Hospital"
[[feeds]]
name = "one"
facility = "stj"
listen = "127.0.0.1:2575"
profile = "one"
[[feeds]]
name = "two"
facility = "stj"
listen = "127.0.0.1:2575"
profile = "two"
[profiles.one]
match = {msh3 = "A"}
[profiles.two]
match = {msh3 = "B"}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('msh3 = "B"', 'msh3 = "A"', 13, "match the same senders"),
        ('profile = "two"', 'profile = "two"\nmax_connections = 9', 15, "differ in max_connections"),
    ],
)
def test_feeds_share_a_listener_only_where_they_can_be_told_apart(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    path = tmp_path / "tocengine.toml"
    path.write_text(SHARED)
    load_config(path, {})
    path.write_text(SHARED.replace(old, new))
    with pytest.raises(ConfigurationError, match=said) as refused:
        load_config(path, {})
    assert refused.value.line == line
