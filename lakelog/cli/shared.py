"""attach, exchange: a lake in a bucket that several machines append to."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
from dataclasses import asdict, dataclass

import click

from lakelog.cli import exits, rounds
from lakelog.cli.app import App, verb
from lakelog.cli.keys import new_ring
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_record
from lakelog.cli.render.terminal import many
from lakelog.cli.signals import ended_by_interrupt
from lakelog.disk import Folder
from lakelog.errors import InvalidKey, InvalidSetting, Unreachable
from lakelog.lake import Lake
from lakelog.paths import FileName
from lakelog.remotes import shared as shared_lakes

_SIZE = re.compile(r"(\d+)\s*([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@verb()
@ended_by_interrupt()
def attach(
    app: App,
    url: str = argument(),
    directory: str | None = argument(type=click.Path()),
    cache: str | None = option(
        "--cache SIZE", "Bytes of segments that stay in DIRECTORY, such as 50GB.", shown="10GB"
    ),
    encrypt: bool = flag("--encrypt", "Encrypt the lake, if it is a new one."),
    key: str = option("--key FILE", "Its master key; made if it is missing.", default=""),
) -> None:
    """Make DIRECTORY part of the lake in a bucket, which other machines share.

    URL is s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, gs://BUCKET/PREFIX or a directory
    of files; DIRECTORY is that of --lake by default, else the last name of URL. Where
    there is no lake yet, one is created. Appends are durable in DIRECTORY; `lakelog
    exchange` publishes them to the bucket, and takes what other machines have
    published. An attachment that was interrupted goes on if it is run again.

    With --encrypt the bucket holds nothing but ciphertext; each machine needs the master
    key to attach, from the variables and files that `lakelog init -h` names.
    """
    if key and not encrypt:
        raise click.UsageError("--key is for --encrypt")
    path = app.new_lake(url, directory)
    # Only a directory of files can be the DIRECTORY; other addresses are no path on this machine.
    if os.path.realpath(url.removeprefix("file://")) == os.path.realpath(path):
        raise click.UsageError(f"{path} would be part of itself: name another DIRECTORY")
    ring = functools.partial(new_ring, app, path, key) if encrypt else None
    store = shared_lakes.attach(url, path, cache=_bytes(cache) if cache else None, new_ring=ring)
    events = store.state("main").totals.events
    app.say(f"attached {path} to {url}: {many(events, 'event')} so far")
    protection = store.paths.protection
    # Keys of subjects are never in the bucket: whoever needs the fields brings the file.
    if protection is not None and protection.ciphers() is None:
        app.say(f"protected fields are NULL here without a copy of their keys: {protection.path}")
    command = f"lakelog --lake {shlex.quote(path)} exchange --every 1s"
    app.say(f"run `{command}` to publish and to follow the others")


def _bytes(value: str) -> int:
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise InvalidSetting(f"{value!r} is no size: write it as 500MB or 50GB")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class ExchangeRound:
    """What one exchange of all branches did."""

    url: str
    arrived: int = 0
    published: int = 0

    @property
    def commits(self) -> int:
        """How many moves came or went."""
        return self.arrived + self.published


@verb()
@ended_by_interrupt()
def exchange(
    app: App,
    every: float | None = option(
        "--every TIME", "Go on, so long after each exchange.", type=rounds.SpanParam()
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Publish what is pending to the bucket, and take what other machines published.

    Exits with an error where the bucket does not answer: events are kept, and published
    later. With --every it goes on until it is stopped, and says when the bucket is away.
    """
    with contextlib.ExitStack() as stack:
        # More lakes are opened while it runs, and all of them are closed by one stack.
        lakes: dict[str, Lake] = {app.branch: stack.enter_context(app.open())}
        trouble = [""]

        def work(_: object) -> ExchangeRound:
            try:
                result = _exchange_all(lakes, stack)
            except (Unreachable, InvalidKey, OSError) as error:
                if every is None:
                    raise
                # Said once, and not at each round: a bucket may be away for hours, a disk full as
                # long, and a new master key may come as long after it was made.
                if not trouble[0]:
                    app.say(f"{exits.words_of(error)}; events wait here until that is over")
                trouble[0] = str(error)
                return ExchangeRound("")
            if trouble[0]:
                app.say(f"{result.url}: exchanged again")
                trouble[0] = ""
            return result

        def report(result: ExchangeRound, _: float) -> None:
            moves = many(result.published, "move"), many(result.arrived, "move")
            line = f"{result.url}: {moves[0]} published, {moves[1]} of other machines arrived\n"
            emit_record(asdict(result), target, lambda: line)

        rounds.repeat(work, report, every)


def _exchange_all(lakes: dict[str, Lake], stack: contextlib.ExitStack) -> ExchangeRound:
    """Exchange each branch that has files of writers here."""
    store = next(iter(lakes.values())).store
    for name in Folder(store.paths.wals).names():
        branch = FileName(name).ref
        is_due = FileName(name).is_ref and Folder(f"{store.paths.wals}/{name}").names()
        # A directory of a writer that has no files has nothing to publish; a deleted branch keeps
        # its own.
        if is_due and branch not in lakes and store.refs.is_alive(branch):
            lakes[branch] = stack.enter_context(Lake(store, branch))
    counts = [lake.exchange() for lake in lakes.values()]
    arrived, published = map(sum, zip(*counts, strict=True))
    return ExchangeRound(
        store.attachment.volume.url if store.attachment else "", arrived, published
    )
