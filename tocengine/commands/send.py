"""Owns the command that sends messages and batches over MLLP, with TLS where it is wanted, and shows every answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.progress import track

from tocengine.adapters.mllp.client import MllpClient, is_answered
from tocengine.commands import output
from tocengine.commands.messages import bodies_of
from tocengine.commands.session import JsonOption, run
from tocengine.config import listen_address
from tocengine.errors import ConfigurationError
from tocengine.formats.hl7v2.ack import Acknowledgment
from tocengine.formats.hl7v2.batch import is_batch, read_remains
from tocengine.tls import client_tls_context


def send(
    files: list[Path] = typer.Argument(
        ..., metavar="FILE...", help="HL7 v2 messages or batches, framed or not, several in a file."
    ),
    to: str = typer.Option(..., "--to", metavar="HOST:PORT"),
    timeout: float = typer.Option(30.0, help="Seconds to wait for each answer."),
    tls: bool = typer.Option(False, "--tls", help="Speak TLS; each of the following options means it too."),
    ca: Path | None = typer.Option(None, "--ca", metavar="FILE", help="Who signs for the receiver."),
    cert: Path | None = typer.Option(None, "--cert", metavar="FILE", help="The certificate to show, in PEM."),
    key: Path | None = typer.Option(None, "--key", metavar="FILE", help="Its key, where it is not in the same file."),
    server_name: str = typer.Option("", "--server-name", metavar="NAME", help="Whose certificate to expect."),
    as_json: bool = JsonOption,
) -> None:
    """Send messages over MLLP, one at a time, and show each answer; of a batch the answer to each of its messages."""
    bodies = [body for file in files for body in bodies_of(file)]
    try:
        host, port = listen_address(to)
        _check_names(host, server_name)
        context = client_tls_context(ca, cert, key) if tls or ca or cert or key or server_name else None
    except (ValueError, ConfigurationError) as error:
        output.fail(str(error), 2)
    client = MllpClient(host, port, timeout_s=timeout, tls=context, server_name=server_name)
    positive = run(_send(bodies, client, as_json=as_json))
    raise typer.Exit(0 if positive else 1)


async def _send(bodies: Sequence[bytes], client: MllpClient, *, as_json: bool) -> bool:
    positive = True
    shown = bodies if as_json else track(bodies, "sending", console=output.stderr, transient=True)
    async with client:
        for number, body in enumerate(shown, 1):
            if is_batch(body):
                answers, comment = await client.send_batch(body)
                good = _is_taken(body, answers, comment)
                _show_batch(number, answers, comment, as_json=as_json)
                if not answers and not good and not comment:
                    output.stderr.print(f"{number}: no answer to any message of the batch")
            else:
                answer = await client.send(body)
                good = answer is None or answer.positive
                _show(str(number), {"number": number}, answer, as_json=as_json)
            positive = positive and good
    return positive


def _check_names(host: str, server_name: str) -> None:
    """Raises ValueError for a name that no host and no certificate can have."""
    for name in (host, server_name or host):
        try:
            encoded = name.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{name!r} is no name of a host") from error
        if not encoded:
            raise ValueError("the name of the host is empty")


def _is_taken(body: bytes, answers: Sequence[Acknowledgment], comment: str) -> bool:
    """A batch was taken: so say the answers to its messages, whatever else is said. Without any it was where nobody
    asked for one, and nothing is said against it."""
    if answers:
        return all(answer.positive for answer in answers)
    return not comment and not any(is_answered(message) for message in read_remains(body).messages)


def _show_batch(number: int, answers: Sequence[Acknowledgment], comment: str, *, as_json: bool) -> None:
    """An answer for each message of the batch, by its place in it, and what is said of all of it."""
    for part, answer in enumerate(answers, 1):
        _show(f"{number}.{part}", {"number": number, "part": part}, answer, as_json=as_json)
    if as_json:
        output.document({"number": number, "answers": len(answers), "comment": comment})
    else:
        text = f"{number}: a batch with {len(answers)} answers{', ' if comment else ''}{comment}"
        output.stdout.print(output.harmless(text), markup=False)


def _show(place: str, numbers: Mapping[str, int], answer: Acknowledgment | None, *, as_json: bool) -> None:
    if as_json:
        output.document({**numbers, "answer": answer})
    else:
        said = f"{answer.code} {answer.control_id} {answer.text}".rstrip() if answer else "no answer asked for"
        output.stdout.print(output.harmless(f"{place}: {said}"), markup=False)
