"""Owns the comparison with other converters: ``python -m tests.conformance.pairs_report`` (also ``make pairs``).

For each pair and fact class: *agree* where everything expected is said here too, *differ* where something of it is
missing or other, *not applicable* where the pair says nothing of it or cannot be read as an ADT message. Why the
engine differs, and who is right, stands in `docs/mapping-differences.md`, one row per fact class.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec
import orjson

from tests.conformance.pair_assertions import asserted
from tests.conformance.pair_facts import facts_of, same
from tests.conformance.pair_files import PAIRS, Pair, pairs
from tests.fixtures.adt import HOSPITAL, ROOT, received
from tocengine.errors import RefusedError
from tocengine.model.ids import FeedName
from tocengine.model.profile import Source, SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer

DIFFERENCES = ROOT / "docs" / "mapping-differences.md"
_ROW = re.compile(r"^\| `([^`]+)` \| (\d+) \| ([^|]+?) \| ([^|]+?) \|", re.MULTILINE)
_OFFICIAL = "v2-to-fhir"
_COUNTED = frozenset(
    "Patient Encounter Observation AllergyIntolerance Condition Procedure Coverage RelatedPerson".split()
)


class Verdict(msgspec.Struct, frozen=True):
    """What became of one fact class of one pair; `expected` and `found` are shown for one that differs."""

    pair: str
    fact: str
    outcome: str  # agree, differ, not applicable
    expected: str = ""
    found: str = ""


def report() -> list[Verdict]:
    """The verdicts over the whole corpus."""
    normalizer = HL7v2Normalizer(Source(feed=FeedName("pairs"), facility=HOSPITAL, profile=SourceProfile()))
    return [verdict for pair in pairs() for verdict in _verdicts(pair, normalizer)]


def differing(verdicts: Iterable[Verdict]) -> Counter[str]:
    """How many pairs differ in each fact class."""
    return Counter(each.fact for each in verdicts if each.outcome == "differ")


def against(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Who makes something else of each fact class: how many converters, and whether the published map's example."""
    sources: dict[str, set[str]] = defaultdict(set)
    for each in verdicts:
        if each.outcome == "differ":
            sources[each.fact].add(each.pair.partition("/")[0])
    return {
        fact: ", ".join(
            [*(["map"] if _OFFICIAL in found else []), *([str(n)] if (n := len(found - {_OFFICIAL})) else [])]
        )
        for fact, found in sources.items()
    }


class Explained(msgspec.Struct, frozen=True):
    """A row of `docs/mapping-differences.md`: in how many pairs, against whom, and who is right."""

    pairs: int
    against: str
    right: str

    @property
    def contested(self) -> bool:
        """Whether the published map, or more than one converter, makes something else of it."""
        return self.against != "1"


def explained() -> dict[str, Explained]:
    """The rows of `docs/mapping-differences.md` by fact class."""
    rows = _ROW.findall(DIFFERENCES.read_text("utf-8"))
    return {name: Explained(int(count), others, right) for name, count, others, right in rows}


def _verdicts(pair: Pair, normalizer: HL7v2Normalizer) -> Iterable[Verdict]:
    if pair.unread or not pair.trigger:
        yield Verdict(pair.name, "*", "not applicable", expected=pair.unread or "no trigger")
        return
    try:
        records = normalizer.normalize(received(pair.body))
    except RefusedError as error:
        yield Verdict(pair.name, "*", "not applicable", expected=f"refused: {error.problem.reason}")
        return
    resources = [entry["resource"] for each in records for entry in orjson.loads(bytes(each.fhir)).get("entry", ())]
    found = facts_of(resources)
    for fact, expected in facts_of(pair.resources).items():
        missing = sorted(each for each in expected if not same(fact, each, found.get(fact, frozenset())))
        here = ", ".join(sorted(found.get(fact, ())))
        yield Verdict(pair.name, fact, "differ" if missing else "agree", ", ".join(missing), here)
    counts = Counter(str(each["resourceType"]) for each in resources)
    for kind, number in pair.counts.items():
        if kind in _COUNTED:
            outcome = "agree" if counts[kind] == number else "differ"
            yield Verdict(pair.name, f"number of {kind}", outcome, str(number), str(counts[kind]))
    for fact, holds, wanted in asserted(pair.facts, resources):
        outcome = "not applicable" if holds is None else "agree" if holds else "differ"
        yield Verdict(pair.name, fact, outcome, wanted)


def main(arguments: list[str]) -> int:
    """Prints the table; with names of fact classes, what differs in them. 1 where a difference is not explained."""
    if not PAIRS.is_dir():
        print(f"no pairs at {PAIRS}: set TOCENGINE_CORPUS")
        return 2
    verdicts = report()
    if arguments:
        for each in verdicts:
            if each.outcome == "differ" and ("all" in arguments or each.fact in arguments):
                print(f"{each.pair}  {each.fact}\n    expected {each.expected}\n    here     {each.found}")
        return 0
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for each in verdicts:
        table[each.fact][each.outcome] += 1
    known = explained() if DIFFERENCES.is_file() else {}
    print(f"{'fact':52} agree differ  n/a  explained")
    for fact, counts in sorted(table.items()):
        said = known[fact].pairs if fact in known else 0
        mark = "NO" if counts["differ"] != said else "yes" if said else ""
        print(f"{fact:52} {counts['agree']:5} {counts['differ']:6} {counts['not applicable']:4}  {mark}")
    totals = Counter(each.outcome for each in verdicts)
    print(f"{sum(1 for _ in pairs())} pairs: {dict(totals)}")
    return int(differing(verdicts) != Counter({fact: row.pairs for fact, row in known.items()}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
