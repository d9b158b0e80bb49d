"""Owns the one tree of errors. Each class says what it owes to whom; no message or argument carries PHI.

TocError
+-- ConfigurationError     exit 2: file, line, what was found, what was probably meant
+-- UnavailableError       exit 3: a service cannot be reached; no positive answer may be given
|   +-- SchemaTooNewError  exit 3: the database was migrated by a newer program
+-- PositionLostError      another consumer took the partition; the batch must not be applied
+-- LogGapError            exit 3: the log does not hold the stored position; a person decides how to go on
+-- RefusedError           the sender is told why: ACK code and HTTP status
|   +-- FramingError       bytes that are no MLLP frame
|   +-- SyntaxRefusedError bytes that are no HL7 v2 message / no FHIR JSON
|   +-- ContentError       a message that cannot be normalized; goes to quarantine
|   |   +-- SetAsideError  its sender did all it was asked: taken, and kept for a person
|   +-- UnsupportedError   a message type, version or sender the feed does not take
|   +-- BatchRefusedError  a batch that is refused as a whole
+-- EventDataError         a stored event that cannot be tracked; it alone is set aside
+-- HeldRowError           rows of events held back that cannot be read; they alone are set aside
+-- InvalidBundleError     a notice that FHIR would not take: it is not sent, and fails as not rendered
"""

from collections.abc import Mapping, Sequence

from tocengine.model.ids import MessageId
from tocengine.model.message import Problem


class TocError(Exception):
    """Base of everything the engine raises on purpose."""

    exit_code = 1


class ConfigurationError(TocError):
    """A setting, directory file or argument that cannot be used."""

    exit_code = 2

    def __init__(self, text: str, *, file: str = "", line: int = 0, hint: str = "") -> None:
        place = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(place + text + (f" ({hint})" if hint else ""))
        self.file, self.line, self.hint = file, line, hint


class UnavailableError(TocError):
    """PostgreSQL, Kafka or another service did not answer; nothing positive may be said to a sender."""

    exit_code = 3
    http_status = 503


class SchemaTooNewError(UnavailableError):
    """The database holds migrations this program does not know."""


class PositionLostError(TocError):
    """The partition was taken by another consumer since the batch was read."""


class LogGapError(TocError):
    """The log no longer holds, or never held, what comes at a consumer's stored position.

    Never skipped silently: records were removed before they were read, or this is another log.
    """

    exit_code = 3


class RefusedError(TocError):
    """Something a sender must be told. `problem` says what and where, without content; `others` what else is wrong."""

    ack_code = "AE"
    http_status = 400

    def __init__(self, problem: Problem, *others: Problem) -> None:
        super().__init__(f"{problem.reason} at {problem.location}" if problem.location else problem.reason)
        self.problem = problem
        self.others = others


class FramingError(RefusedError):
    """The byte stream broke the MLLP framing."""

    ack_code = "AR"


class SyntaxRefusedError(RefusedError):
    """The bytes are not a message of the announced format."""

    ack_code = "AR"


class UnreadBodyError(RefusedError):
    """A request's body was not read: too large, too slow, of another kind. `http_status` is what it is owed."""

    def __init__(self, problem: Problem, http_status: int) -> None:
        super().__init__(problem)
        self.http_status = http_status


class ContentError(RefusedError):
    """The message is well-formed but lacks or garbles what the engine needs."""

    ack_code = "AE"
    http_status = 422


class SetAsideError(ContentError):
    """The message is right and the engine lacks something to go on with: taken, and kept until a person adds it."""

    ack_code = "AA"
    http_status = 202


class UnsupportedError(RefusedError):
    """The message type, version, processing id or sender is not taken by this feed."""

    ack_code = "AR"
    http_status = 422


class BatchRefusedError(RefusedError):
    """A batch is taken whole or not at all; `refusals` are those of its messages that prevent it, by number from 0."""

    ack_code = "AR"

    def __init__(self, refusals: Mapping[int, RefusedError]) -> None:
        super().__init__(next(iter(refusals.values())).problem)
        self.refusals = refusals


class EventDataError(TocError):
    """One event's own data makes it impossible to track; an outage is never reported as this."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


class HeldRowError(TocError):
    """Rows of events that were held back cannot be read any more. `rows` are what they hold, by message id and part."""

    def __init__(self, rows: Mapping[tuple[MessageId, int], bytes]) -> None:
        super().__init__(f"{len(rows)} rows of events held back cannot be read")
        self.rows = rows


class InvalidBundleError(TocError):
    """A Bundle of our own making that FHIR would not take: it is not sent, and its notice fails as not rendered.

    `findings` name places and rules, never values.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("; ".join(findings))
        self.findings = tuple(findings)
