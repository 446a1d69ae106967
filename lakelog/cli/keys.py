"""key: keys for signatures, and the keys of an encrypted lake."""

from __future__ import annotations

import os

import click

from lakelog import proofs
from lakelog.cli.app import App, verb
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_record
from lakelog.cli.render.tables import clock
from lakelog.errors import InvalidKey
from lakelog.keys import VAULT, KeyRing, SubjectKeys, master
from lakelog.keys.master import KeyService, Master
from lakelog.store import Store

_ACTIONS = ("generate", "show", "rotate")


@verb()
def key(
    app: App,
    action: str = argument(type=click.Choice(_ACTIONS)),
    file: str | None = argument("[FILE]", type=click.Path()),
    comment: str = option("--comment TEXT", "Written into both files of `generate`.", default=""),
    data: bool = flag("--data", "`rotate` makes a new data key, too."),
    kms: str = option("--kms COMMAND", "`rotate` to a master key behind a command.", default=""),
    target: OutputTarget = OUTPUT,
) -> None:
    """Show and rotate the keys of an encrypted lake; make and show keys for signatures.

    Without FILE, `show` lists the keys of the lake. `rotate` wraps its data keys by another master
    key, that of FILE, which is made if it is missing; no data is rewritten. Both are also for the
    file of the keys of subjects (`lakelog config protect`). `generate` makes an Ed25519 key for
    signatures: FILE gets the private key and FILE.pub the public one, which `show FILE` shows. No
    key is stored in a lake but wrapped. Needs the extra `encrypt` or `sign`.
    """
    if comment and action != "generate":
        raise click.UsageError("--comment is for `lakelog key generate`")
    if (data or kms) and action != "rotate":
        raise click.UsageError("--data and --kms are for `lakelog key rotate`")
    if action == "rotate":
        _rotate(app, file or "", data, kms)
    elif file is not None:
        _signing_key(app, action, file, comment, target)
    elif action == "show":
        _show(app, target)
    else:
        raise click.UsageError("give the FILE that the new key gets")


def _signing_key(app: App, action: str, file: str, comment: str, target: OutputTarget) -> None:
    """Make or show a key for signatures."""
    public = (
        proofs.PrivateKey.generate(file, comment)
        if action == "generate"
        else proofs.PublicKey.load(file)
    )
    key_kind = "private" if proofs.PrivateKey.is_in(file) else "public"
    record = {"id": public.id, "kind": key_kind, "comment": public.comment, "public": public.pem}
    line = f"key {public.id}{f' ({public.comment})' if public.comment else ''}\n"
    if action == "generate":
        app.say(f"wrote {file} (keep it private) and {file}.pub")
    emit_record(record, target, lambda: line)


def _show(app: App, target: OutputTarget) -> None:
    """Show the keys of the lake."""
    store = Store.load(app.path)
    protection = store.paths.protection
    record: dict[str, object] = {}
    lines: list[str] = []
    # A lake with protected fields and no encryption has no ring, and that is no mistake there.
    if protection is None or store.paths.keys is not None:
        record, lines = _ring_shown(store)
    if protection is not None:
        is_there = protection.ciphers() is not None
        destroyed = protection.destroyed
        record["subjects"] = {
            "id": protection.id,
            "file": protection.path,
            "there": is_there,
            "fields": list(protection.fields),
            "destroyed": destroyed,
        }
        state = f"{destroyed} destroyed" if is_there else "missing: protected fields are NULL"
        fields = ", ".join(protection.fields)
        lines.append(f"keys of subjects for {fields}: {protection.path}, {state}")
    emit_record(record, target, lambda: "\n".join(lines) + "\n")


def _ring_shown(store: Store) -> tuple[dict[str, object], list[str]]:
    """Return the keys of an encrypted lake, as a record and as lines."""
    ring = _ring_of(store)
    keys = [
        {"id": name, "created": clock(wrapped.created), "current": name == ring.key}
        for name, wrapped in ring.keys.items()
    ]
    record: dict[str, object] = {"ring": ring.ring, "master": ring.master}
    record |= {"former": list(ring.former), "keys": keys}
    lines = [f"master key {ring.master}"]
    for entry in keys:
        use = ", encrypts what is written now" if entry["current"] else ""
        lines.append(f"data key {entry['id']} of {entry['created']}{use}")
    return record, lines


def _rotate(app: App, file: str, has_new_data_key: bool, kms: str) -> None:
    """Wrap the data keys by another master key, or make a new data key."""
    store = Store.load(app.path)
    protection = store.paths.protection
    # Only the keys of subjects are there to be wrapped; --data asks for a key that does not exist.
    if protection is not None and store.paths.keys is None and not has_new_data_key:
        new_master = _new_master(file, kms)
        path = SubjectKeys.rotate(protection.id, new_master)
        app.say(f"{path} is wrapped by {new_master.id} now, from {new_master.origin}: {_ADVICE}")
        return
    ring = _ring_of(store)
    is_moved = bool(file or kms or not has_new_data_key)
    old = new = ring.find_master()
    if is_moved:
        new = _new_master(file, kms)
        ring = ring.rotated(new)
    if has_new_data_key:
        ring = ring.with_new_key(new)
    wrapped = protection if is_moved and protection and protection.ciphers() else None
    if wrapped is not None:
        # By both: between two files a process may die, and one key has to open all that is there.
        SubjectKeys.rotate(wrapped.id, new, old)
    store.change_keys(ring, new)
    if wrapped is not None:
        SubjectKeys.rotate(wrapped.id, new)
    if is_moved:
        app.say(f"the master key is {new.id} now, from {new.origin}: {_ADVICE}")
    if has_new_data_key:
        app.say(f"what is written from now on is encrypted with the data key {ring.key}")


def _new_master(file: str, kms: str) -> Master:
    if kms:
        return KeyService(kms)
    return master.pick(file) if file else master.generate()


def new_ring(app: App, root: str, file: str) -> KeyRing:
    """Return the keys for the lake at a path, which is to be encrypted."""
    master_key = master.pick(file)
    ring = KeyRing.generate(master_key)
    # Unlocked before the lake is opened again: all that is written from now on is encrypted.
    VAULT.unlock(os.path.abspath(root), ring, master_key)
    app.say(f"its master key {master_key.id} is from {master_key.origin}: {_ADVICE}")
    if file:
        app.say(f"whoever opens it needs LAKELOG_KEY_FILE={file}")
    return ring


_ADVICE = "without it nobody can read the lake"


def _ring_of(store: Store) -> KeyRing:
    if store.paths.keys is None:
        raise InvalidKey(
            f"the lake at {store.paths.root} is not encrypted: see `lakelog config encrypt`"
        )
    return store.paths.keys.ring
