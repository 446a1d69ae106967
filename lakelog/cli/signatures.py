"""key, sign, prove, check-proof: who vouches for a state, and what is in it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection
from typing import Any

import click
import orjson

from lakelog import lake as lakes
from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.render.output import OutputTarget, emit_record, with_output
from lakelog.cli.render.terminal import many
from lakelog.errors import Damaged, NotProven, UnknownRef
from lakelog.export import folder
from lakelog.maintain.repair.checker import Problem, Report
from lakelog.proofs import keys, proof, signing, snapshot_tree
from lakelog.proofs.envelope import Statement
from lakelog.render.values import clock, micros
from lakelog.settings import span_us
from lakelog.store.bootstrap import Store

UNSIGNED = "unsigned"
"""The kind of a problem with a signature, where the files may all be as they were written."""
_SHORT = 16
_PROOF_MAX = 1 << 28


@verb(
    examples="""
    lakelog key generate ~/.keys/lake --comment "release key of the paper"
    lakelog key show ~/.keys/lake.pub
"""
)
@click.argument("action", type=click.Choice(["generate", "show"]))
@click.argument("file", type=click.Path())
@click.option("--comment", default="", metavar="TEXT", help="Written into both files.")
@with_output
def key(app: App, action: str, file: str, comment: str, target: OutputTarget) -> None:
    """Make an Ed25519 key for signatures, or show one.

    FILE gets the private key, readable by its owner only, and FILE.pub the public key, for those
    who check. Neither is stored in a lake. Needs the extra `sign`.
    """
    if action == "show" and comment:
        raise click.UsageError("--comment is for `lakelog key generate`")
    public = keys.generate(file, comment) if action == "generate" else keys.load_public(file)
    kind = "private" if keys.is_private(file) else "public"
    record = {"id": public.id, "kind": kind, "comment": public.comment, "public": public.pem}
    text = f"key {public.id}{f' ({public.comment})' if public.comment else ''}\n"
    if action == "generate":
        app.say(f"wrote {file} (keep it private) and {file}.pub")
    emit_record(record, target, lambda: text)


@verb(
    examples="""
    lakelog sign v1 --key ~/.keys/lake
    lakelog sign v1 --key ~/.keys/lake --expires 365d
"""
)
@click.argument("ref", shell_complete=complete_ref)
@click.option(
    "--key", "key", required=True, type=click.Path(), metavar="FILE", help="The private key."
)
@click.option("--expires", metavar="SPAN", help="The signature is valid for 365d, 12h, 4w.")
@with_output
def sign(app: App, ref: str, key: str, expires: str | None, target: OutputTarget) -> None:
    """Sign a tag, or the state that another REF names.

    The signature covers the lake, the tag, the state and the root of a Merkle tree over its events.
    `lakelog tag NAME --sign KEY` does both at once. A key that signs again replaces its signature.
    """
    private = keys.load_private(key)
    span = span_us(expires) if expires else None
    with app.open() as lake:
        if ref == lake.branch_name:
            lake.settle()  # who signs a branch signs all that was appended to it
        what = signing.target(lake.store, lake.branch_name, ref)
        statement = sign_target(app, lake, what, private, span)
    if target.format != "table" or target.path:
        emit_record(_statement_record(statement), target, lambda: f"{statement.root}\n")


@verb(
    examples="""
    lakelog prove order-4711 --at v1 -o order-4711.proof
    lakelog prove --seq 1234 --at v1
"""
)
@click.argument("id", required=False, metavar="[EVENT_ID]")
@click.option("--source", metavar="TEXT", help="The source of the event, if several have its id.")
@click.option("--seq", type=click.IntRange(min=0), help="The event's seq, in place of its id.")
@click.option(
    "--at", "ref", metavar="REF", shell_complete=complete_ref, help="A signed tag or state."
)
@click.option("--signed-by", metavar="KEY", help="Use the signature of this public key.")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write the proof there.")
def prove(
    app: App,
    id: str | None,
    source: str | None,
    seq: int | None,
    ref: str | None,
    signed_by: str | None,
    output: str | None,
) -> None:
    """Prove that an event is in a signed state.

    The proof is one JSON file that contains the event and all that is needed to check it; without
    --at it is for what was signed last. `lakelog check-proof` checks it without the lake.
    """
    if (id is None) == (seq is None):
        raise click.UsageError("give the id of an event, or --seq")
    accepted = [keys.load_public(signed_by)] if signed_by else []
    with app.open() as lake:
        store = lake.store
        # A proof is worth what its state is signed with, and the newest state seldom is signed.
        if ref is None:
            what = signing.last_signed(store)
        else:
            what = signing.target(store, lake.branch_name, ref)
        number = seq if id is None else _seq_of(store, what, id, source)
        data = proof.prove(store, what, number or 0, accepted)
    if output is None:
        sys.stdout.buffer.write(data)
        return
    with folder.atomic_file(output) as file:
        file.write(data)
    app.say(f"wrote {output}: the event is in {what}")


@verb(
    examples="""
    lakelog check-proof order-4711.proof --signed-by lake.pub
""",
    name="check-proof",
)
@click.argument("path", type=click.Path(), metavar="FILE")
@click.option(
    "--signed-by", multiple=True, required=True, metavar="KEY", help="An accepted public key."
)
@with_output
def check_proof(app: App, path: str, signed_by: tuple[str, ...], target: OutputTarget) -> None:
    """Check a proof of `lakelog prove`; needs no lake.

    Prints the event and what was signed. Exits with 3 if the proof does not show what it claims.
    """
    public = [keys.load_public(text) for text in signed_by]
    try:
        # A file without end is refused before it fills the memory.
        with click.open_file(path, "rb") as file:
            data = file.read(_PROOF_MAX + 1)
        if len(data) > _PROOF_MAX:
            raise NotProven("it is too long for a proof")
        proven = proof.check(data, public)
    except NotProven as error:
        raise NotProven(f"{path}: {error}") from None
    said = proven.signed.statement
    record = {
        "proven": True,
        "index": proven.index,
        "key": proven.signed.key.id,
        "statement": _statement_record(said),
        "event": proven.event,
    }
    emit_record(record, target, lambda: _proven_line(proven))


def sign_target(
    app: App,
    lake: lakes.Lake,
    what: signing.Target,
    private: keys.PrivateKey,
    expires_in: int | None = None,
) -> Statement:
    """Sign a tag or a state with progress, and say so."""
    with app.progress("hashing", "events") as progress:
        said = signing.sign(lake.store, lake.branch_name, what, private, expires_in, progress)
    app.say(f"{what}: {many(said.events, 'event')} signed by {private.public.id[:_SHORT]}")
    return said


def with_signatures(
    app: App,
    store: Store,
    report: Report,
    ref: str | None,
    accepted: list[keys.PublicKey],
    lakes: Collection[str],
) -> Report:
    """Return a report with the problems of signatures: of what a ref names, or of all tags and
    branches. They are made here or in one of `lakes`."""
    with app.progress("hashing", "events") as progress:
        try:
            if ref is None:
                found = signing.check_tags(store, accepted, progress, lakes)
                found += signing.check_branches(store, accepted, progress, lakes)
            else:
                what = signing.target(store, app.branch, ref)
                found = signing.check(store, what, accepted, progress, lakes=lakes)
                if ref in store.refs.branches() and not what.tag:
                    found += signing.check_pending(store, ref)
        # Damage was named by verify, but what cannot be read has no signature, either.
        except Damaged as error:
            found = [(error.path, error.reason)]
    known = {(p.path, p.reason) for p in report.problems}
    more = [Problem(*each, UNSIGNED) for each in found if each not in known]
    return dataclasses.replace(report, problems=(*report.problems, *more))


def _seq_of(store: Store, what: signing.Target, id: str, source: str | None) -> int:
    """Return the seq of the event with an id. Raises UnknownRef, and UsageError for several."""
    found = snapshot_tree.find(store, what.snapshot, id, source)
    if not found:
        where = "" if source is None else f" of source {source!r}"
        raise UnknownRef(f"{what} has no event with id {id!r}{where}")
    if len(found) > 1:
        listed = ", ".join(f"--seq {seq} (source {name!r})" for seq, name in found[:3])
        raise click.UsageError(f"{many(len(found), 'event')} have the id {id!r}: choose {listed}")
    return found[0][0]


def _statement_record(said: Statement) -> dict[str, Any]:
    expires = None if said.expires is None else micros(said.expires)
    return dataclasses.asdict(said) | {"time": micros(said.time), "expires": expires}


def _proven_line(proven: proof.Proven) -> str:
    said, key = proven.signed.statement, proven.signed.key
    name = f"tag {said.tag}, snapshot" if said.tag else "snapshot"
    times = {
        "time": micros(proven.event["time"]),
        "ingested_at": micros(proven.event["ingested_at"]),
    }
    shown = {name: value for name, value in (proven.event | times).items() if value is not None}
    event = orjson.dumps(shown).decode()
    return (
        f"proven: event {proven.index + 1:,} of {said.events:,} of {name} {said.snapshot[:12]}\n"
        f"lake {said.lake}, signed {clock(said.time)} by {key.id[:_SHORT]}"
        f"{f' ({key.comment})' if key.comment else ''}\n{event}\n"
    )
