"""Owns the second opinion on a message that was set aside: what `check` says of its structure, or R4's models.

It costs 50 ms and more a message, so it is made when a person looks. It names places and rules, never values.
"""

import queue
import threading
from collections.abc import Callable

from tocengine.adapters.fhir.request import check_message
from tocengine.conformance.structure import structure_findings
from tocengine.errors import RefusedError
from tocengine.formats import hl7v2
from tocengine.model.message import ContentType, Problem

TIME_LIMIT_S = 10.0
MAX_LINES = 40


def diagnosis(content_type: str, body: bytes, time_limit_s: float = TIME_LIMIT_S) -> list[str]:
    """Findings about `body`, for a person; an empty list where the library has nothing against it."""
    makers: dict[str, Callable[[bytes], list[str]]] = {ContentType.HL7V2: _of_hl7v2, ContentType.FHIR: _of_fhir}
    maker = makers.get(content_type)
    return _within(time_limit_s, maker, body) if maker else []


def _within(time_limit_s: float, maker: Callable[[bytes], list[str]], body: bytes) -> list[str]:
    """In a thread that is left behind where it takes too long: a message may be made to."""
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(maker(body)[:MAX_LINES])
        except Exception as error:  # the library's own troubles with what a sender invented
            answers.put([f"the structure cannot be examined: {type(error).__name__}"])

    threading.Thread(target=work, daemon=True, name="diagnosis").start()
    try:
        return answers.get(timeout=time_limit_s)
    except queue.Empty:
        return [f"the structure was not examined within {time_limit_s:g} s"]


def _of_hl7v2(body: bytes) -> list[str]:
    try:
        message = hl7v2.parse(body)
    except RefusedError as error:
        return [_said(error.problem)]
    return [f"{each.text} ({each.rule}) at {each.location or '-'}" for each in structure_findings(message)]


def _of_fhir(body: bytes) -> list[str]:
    found = check_message(body)
    return [_said(problem) for problem in (found.problem, *found.others)] if found else []


def _said(problem: Problem) -> str:
    return f"{problem.text} ({problem.reason}) at {problem.location or '-'}"
