"""Owns panels in bulk: CSV to members, and the set-based difference to what is in force. A million rows in one COPY."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

import msgspec

from tocengine.errors import ConfigurationError
from tocengine.model.directory import OPT_OUT, PanelMember
from tocengine.model.ids import RecipientId
from tocengine.ports import Transaction
from tocengine.routing.postgres import QUERIES
from tocengine.routing.yaml_reader import suggestion

COLUMNS = ("domain", "value", "family", "given", "birth_date", "sex", "from", "to")
_REQUIRED = ("domain", "value")
_STAGED = (
    "line", "recipient_id", "domain", "value", "starts", "ends", "family", "given", "birth_date", "sex"
)  # fmt: skip
StagedRow = tuple[int, str, str, str, date | None, date | None, str, str, str, str]


class PanelFile(msgspec.Struct, frozen=True, kw_only=True):
    """A panel in CSV (``domain,value,family,given,birth_date,sex,from,to``), read row by row when it is needed."""

    path: Path
    recipient_id: RecipientId
    columns: tuple[int, ...]  # the place of each of COLUMNS, -1 where the file lacks it
    domains: Mapping[str, str]


class PanelPlan(msgspec.Struct, frozen=True):
    """What applying would do to one recipient's panel. `missing` members are retired only with prune."""

    recipient_id: RecipientId
    added: int
    changed: int
    missing: int
    prune: bool

    @property
    def changes(self) -> int:
        """Members that would change."""
        return self.added + self.changed + (self.missing if self.prune else 0)


def load_panel_csv(path: Path, owner: RecipientId, domains: Mapping[str, str] | None = None) -> PanelFile:
    """Checks the header; rows are checked as they are read. Raises ConfigurationError with file and line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = [name.strip() for name in next(csv.reader(stream), [])]
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("is not UTF-8", file=str(path), line=1) from error
    for name in header:
        if name not in COLUMNS:
            hint = suggestion(name, COLUMNS) or f"known: {', '.join(COLUMNS)}"
            raise ConfigurationError(f'there is no column "{name}"', file=str(path), line=1, hint=hint)
        if header.count(name) > 1:
            raise ConfigurationError(f'the column "{name}" is there twice', file=str(path), line=1)
    for name in _REQUIRED:
        if name not in header:
            raise ConfigurationError(f'the column "{name}" is missing', file=str(path), line=1)
    columns = tuple(header.index(name) if name in header else -1 for name in COLUMNS)
    return PanelFile(path=path, recipient_id=owner, columns=columns, domains=domains or {})


def csv_rows(file: PanelFile) -> Iterator[StagedRow]:
    """The rows of `file`, checked. Raises ConfigurationError with the line of the first bad one."""
    with file.path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, strict=True)
        next(rows, None)
        try:
            for row in rows:
                if row:
                    yield _csv_row(file, rows.line_num, row)
        except csv.Error as error:
            raise ConfigurationError(f"is not CSV: {error}", file=str(file.path), line=rows.line_num) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError("is not UTF-8", file=str(file.path), line=rows.line_num + 1) from error


def _csv_row(file: PanelFile, line: int, row: Sequence[str]) -> StagedRow:
    def refuse(text: str) -> ConfigurationError:
        return ConfigurationError(text, file=str(file.path), line=line)

    try:
        domain, value, family, given, birth_date, sex, starts, ends = (
            row[place].strip() if place >= 0 else "" for place in file.columns
        )
    except IndexError:
        raise refuse(f"the row has {len(row)} values, fewer than the header") from None
    if not domain or not value:
        raise refuse('a member needs "domain" and "value"')
    if "\0" in "".join(row):
        raise refuse("the row holds a NUL character")
    if file.domains:
        if domain not in file.domains:
            raise refuse(f'there is no identifier domain "{domain}"')
        domain = file.domains[domain]
    try:
        begin = date.fromisoformat(starts) if starts else None
        end = date.fromisoformat(ends) if ends else None
    except ValueError:
        raise refuse('"from" and "to" are dates: YYYY-MM-DD') from None
    if begin and end and end < begin:
        raise refuse("a membership cannot end before it starts")
    return line, file.recipient_id, domain, value, begin, end, family, given, birth_date, sex


def member_rows(members: Iterable[PanelMember]) -> Iterator[StagedRow]:
    """Members that were checked elsewhere, in the form they are staged in."""
    for line, m in enumerate(members, 1):
        yield (
            *(line, m.recipient_id, m.domain, m.value, m.starts, m.ends),
            *(m.family, m.given, m.birth_date, m.sex),
        )


async def stage(transaction: Transaction, rows: Iterable[StagedRow], file: str) -> None:
    """Copies `rows` to a table that ends with the transaction. Raises ConfigurationError for a member listed twice."""
    await transaction.execute(QUERIES["stage_panel"])
    await transaction.copy_records_to_table("panel_stage", records=rows, columns=_STAGED)
    await transaction.execute(QUERIES["analyze_stage"])
    twice = await transaction.fetchrow(QUERIES["staged_twice"])
    if twice is not None:
        raise ConfigurationError(f"this member is already in line {twice['first']}", file=file, line=twice["line"])


async def staged_changes(transaction: Transaction, owners: Sequence[RecipientId], prune: bool) -> tuple[PanelPlan, ...]:
    """What applying the stage would do to the panels of `owners`."""
    rows = await transaction.fetch(QUERIES["panel_changes"], owners)
    return tuple(
        PanelPlan(RecipientId(row["recipient_id"]), row["added"], row["changed"], row["missing"], prune) for row in rows
    )


async def apply_stage(transaction: Transaction, owners: Sequence[RecipientId], prune: bool, now: datetime) -> None:
    """Makes the stage the panels of `owners`: changed rows are retired and added anew, so that history is kept."""
    await transaction.execute(QUERIES["retire_changed_members"], now)
    await transaction.execute(QUERIES["add_members"], now)
    if any(owner.startswith(OPT_OUT) for owner in owners):
        await transaction.execute(QUERIES["refusals_are_telling"], now)
    if prune:
        await transaction.execute(QUERIES["retire_missing_members"], owners, now)
