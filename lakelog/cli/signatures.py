"""sign, prove, check-proof: who vouches for a state, and what is in it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection

import click
import orjson

from lakelog import export, proofs
from lakelog import lake as lakes
from lakelog.cli.app import App, complete_ref, state_option, verb
from lakelog.cli.options import argument, option, output_files
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_done, emit_record
from lakelog.cli.render.tables import clock
from lakelog.cli.render.terminal import many
from lakelog.errors import Damaged, NotProven, UnknownRef
from lakelog.maintain import Report
from lakelog.proofs import Statement
from lakelog.render import micros
from lakelog.settings import span_us
from lakelog.store import Store

UNSIGNED = "unsigned"
"""The kind of a problem with a signature, where the files may all be as they were written."""
_SHORT = 16
_PROOF_MAX = 1 << 28


@verb()
def sign(
    app: App,
    ref: str = argument(shell_complete=complete_ref),
    key: str = option("--key FILE", "The private key.", required=True),
    expires: str | None = option("--expires SPAN", "The signature is valid for 365d, 12h, 4w."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Sign a tag, or the state that another REF names.

    The signature covers the lake, the tag, the state and the root of a Merkle tree over its events.
    `lakelog tag NAME --sign KEY` does both at once. A key that signs again replaces its signature.
    """
    private = proofs.PrivateKey.load(key)
    span = span_us(expires) if expires else None
    with app.open() as lake:
        if ref == lake.branch_name:
            lake.settle()  # who signs a branch signs all that was appended to it
        signed_target = proofs.Target.of(lake.store, lake.branch_name, ref)
        statement = sign_target(app, lake, signed_target, private, span)
    emit_done(_statement_record(statement), target, f"{statement.root}\n")


@verb()
def prove(
    app: App,
    id: str | None = argument("[EVENT_ID]"),
    source: str | None = option(
        "--source TEXT", "The source of the event, if several have its id."
    ),
    seq: int | None = option(
        "--seq", "The event's seq, in place of its id.", type=click.IntRange(min=0)
    ),
    ref: str | None = state_option("A signed tag or state."),
    signed_by: str | None = option("--signed-by KEY", "Use the signature of this public key."),
    output: str | None = option("-o, --output FILE", "Write the proof there."),
) -> None:
    """Prove that an event is in a signed state.

    The proof is one JSON file that contains the event and all that is needed to check it; without
    --at it is for what was signed last. `lakelog check-proof` checks it without the lake.
    """
    if (id is None) == (seq is None):
        raise click.UsageError("give the id of an event, or --seq")
    accepted = [proofs.PublicKey.load(signed_by)] if signed_by else []
    if output is not None:
        output_files().append(output)  # a proof has the whole event
    with app.open() as lake:
        store = lake.store
        # A proof is worth what its state is signed with, and the newest state seldom is signed.
        if ref is None:
            signed_target = proofs.Target.last_signed(store)
        else:
            signed_target = proofs.Target.of(store, lake.branch_name, ref)
        number = seq if id is None else _seq_of(store, signed_target, id, source)
        data = proofs.prove(store, signed_target, number or 0, accepted)
    if output is None:
        sys.stdout.buffer.write(data)
        return
    with export.atomic_file(output) as file:
        file.write(data)
    app.say(f"wrote {output}: the event is in {signed_target}")


@verb()
def check_proof(
    app: App,
    path: str = argument("FILE"),
    signed_by: tuple[str, ...] = option(
        "--signed-by KEY", "An accepted public key.", required=True
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Check a proof of `lakelog prove`, or a receipt of `lakelog erase`; needs no lake.

    Prints the event and what was signed. Exits with 3 if it does not show what it claims.
    """
    public = [proofs.PublicKey.load(key_text) for key_text in signed_by]
    # The path in front of each reason, for it was the file that did not prove it.
    try:
        # A file without end is refused before it fills the memory.
        with click.open_file(path, "rb") as file:
            data = file.read(_PROOF_MAX + 1)
        if len(data) > _PROOF_MAX:
            raise NotProven("it is too long for a proof")
        if proofs.ErasureReceipt.is_one(data):
            _emit_receipt(proofs.ErasureReceipt.check(data, public), target)
            return
        proven = proofs.check_proof(data, public)
    except NotProven as error:
        raise NotProven(f"{path}: {error}") from None
    claim = proven.signed.statement
    record = {
        "proven": True,
        "index": proven.index,
        "key": proven.signed.key.id,
        "statement": _statement_record(claim),
        "event": proven.event,
    }
    emit_record(record, target, lambda: _proven_line(proven))


def sign_target(
    app: App,
    lake: lakes.Lake,
    signed_target: proofs.Target,
    private: proofs.PrivateKey,
    expires_in: int | None = None,
) -> Statement:
    """Sign a tag or a state with progress, and say so."""
    with app.progress("hashing", "events") as progress:
        claim = proofs.sign(
            lake.store, lake.branch_name, signed_target, private, expires_in, progress
        )
    app.say(
        f"{signed_target}: {many(claim.events, 'event')} signed by {private.public.id[:_SHORT]}"
    )
    return claim


def with_signatures(
    app: App,
    store: Store,
    report: Report,
    ref: str | None,
    accepted: list[proofs.PublicKey],
    lakes: Collection[str],
) -> Report:
    """Return a report with the problems of signatures: of what a ref names, or of all tags and
    branches. They are made here or in one of `lakes`."""
    with app.progress("hashing", "events") as progress:
        try:
            check = proofs.SignatureCheck(store, accepted, progress, lakes)
            faults = check.lake() if ref is None else check.ref(app.branch, ref)
        # Damage was named by verify, but what cannot be read has no signature, either.
        except Damaged as error:
            faults = [(error.path, error.reason)]
    return report.with_faults(faults, UNSIGNED)


def _seq_of(store: Store, signed_target: proofs.Target, id: str, source: str | None) -> int:
    """Return the seq of the event with an id. Raises UnknownRef, and UsageError for several."""
    matches = proofs.find_events(store, signed_target.snapshot, id, source)
    if not matches:
        source_note = "" if source is None else f" of source {source!r}"
        raise UnknownRef(f"{signed_target} has no event with id {id!r}{source_note}")
    if len(matches) > 1:
        choices = ", ".join(f"--seq {seq} (source {name!r})" for seq, name in matches[:3])
        raise click.UsageError(
            f"{many(len(matches), 'event')} have the id {id!r}: choose {choices}"
        )
    return matches[0][0]


def _emit_receipt(receipt: proofs.ErasureReceipt, target: OutputTarget) -> None:
    erasure, key = receipt.erasure, receipt.key
    assert key is not None
    record = {"proven": True, "key": key.id, "erasure": erasure}
    clean = sum(bool(copy["clean"]) for copy in erasure["copies"])
    counts = f"{many(erasure['events'], 'event')}, {many(erasure['lines'], 'quarantined line')}"
    content = (
        f"proven: erasure {erasure['key']} of lake {erasure['lake']}, {erasure['state']}\n"
        f"{counts}, {erasure['time']} by {erasure['by']} ({erasure['why']})\n"
        f"{clean} of {len(erasure['copies'])} copies are clean; signed {erasure['issued']} by"
        f" {key.id[:_SHORT]}{f' ({key.comment})' if key.comment else ''}\n"
    )
    emit_record(record, target, lambda: content)


def _statement_record(claim: Statement) -> dict[str, object]:
    expires = None if claim.expires is None else micros(claim.expires)
    return dataclasses.asdict(claim) | {"time": micros(claim.time), "expires": expires}


def _proven_line(proven: proofs.Proven) -> str:
    claim, key = proven.signed.statement, proven.signed.key
    name = f"tag {claim.tag}, snapshot" if claim.tag else "snapshot"
    times = {
        "time": micros(proven.event["time"]),
        "ingested_at": micros(proven.event["ingested_at"]),
    }
    members = {name: value for name, value in (proven.event | times).items() if value is not None}
    event = orjson.dumps(members).decode()
    return (
        f"proven: event {proven.index + 1:,} of {claim.events:,} of {name} {claim.snapshot[:12]}\n"
        f"lake {claim.lake}, signed {clock(claim.time)} by {key.id[:_SHORT]}"
        f"{f' ({key.comment})' if key.comment else ''}\n{event}\n"
    )
