"""Whether one side of a push or pull contains all that the other one has.

States are thinned, so parents cannot be followed far. What can be relied on: a branch that was not
rewound since a move contains that move's events, and a rewind raises its generation (F7.5). So a
move that both sides had in common is remembered (known.py), and from there each side is judged by
its own log. A merge is no such rewind, though it raises the generation: it loses no event, but
gives ours other numbers. It names the remote's move that the branch goes on from (F7.14), and is
believed because no other lake writes our moves.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lakelog.errors import Diverged, TransferRefused
from lakelog.lake import Lake
from lakelog.refs import Head, MergeNote, Move
from lakelog.remotes import known
from lakelog.remotes.carry import Transfer
from lakelog.remotes.erasures import RemoteErasures
from lakelog.remotes.known import Common, KnownBranch, KnownRemote, MovePosition, place_of
from lakelog.remotes.site import Site
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Store

MAINTENANCE = {"compact", "maintain", "erase"}
"""Moves that change files and no events, or take out what both sides refuse from then on."""
_REWINDS = {"rollback", "undo", "repair"}
# So far back logs are read, each move of which is a request at a remote.
_MOVES_MAX = 1_000


def settled(lake: Lake, branch: str) -> Head:
    """Publish what is pending on a branch and return its newest move. Raises UnknownRef."""
    # Settled already, and this lake's writer has what is pending of it.
    if branch == lake.branch_name:
        return lake.settle()
    if branch not in lake.store.refs.branches():
        raise lake.store.refs.no_branch(branch)
    with Lake(lake.store, branch) as branch_lake:
        return branch_lake.settle()


class Exchange:
    """One transfer between a lake and a remote, whichever way."""

    def __init__(
        self,
        store: Store,
        remote: KnownRemote,
        site: Site,
        result: Transfer,
        progress: ProgressCallback,
    ) -> None:
        self._store, self._site, self._result = store, site, result
        self._known, self._progress = remote, progress
        self._erasures = RemoteErasures(store, site, remote.name)

    def _meet(self, lake: str) -> None:
        """Forget what was known of branches if another lake is there now. Raises
        TransferRefused."""
        if lake == self._store.lake_id:
            raise TransferRefused(
                f"{self._known.url}: that is this lake, or a backup of it: choose another"
            )
        if lake != self._known.lake:
            # What an earlier lake at that address had says nothing about this one.
            self._known = replace(self._known, lake=lake, branches={})
            if not self._result.dry_run:
                known.save(self._store, self._known)

    def _remember(self, branch: str, known_branch: KnownBranch) -> None:
        self._known = self._known.with_branch(branch, known_branch)
        known.save(self._store, self._known)

    def _agree(self, branch: str, remote_move: Move, local_move: Move) -> None:
        """Remember that both sides have the same events."""
        place = place_of(remote_move)
        self._remember(branch, KnownBranch(place, Common(place, place_of(local_move))))


def is_contained(
    store: Store,
    site: Site,
    branch: KnownBranch,
    local: Move,
    remote: Move,
    *,
    over_merges: bool = True,
) -> bool:
    """Whether the local branch has all events of the remote one, as far as can be told; without
    `over_merges` with their numbers, too."""
    moves = list(_since_rewind(store, local, over_merges))
    common = branch.common
    # We still hold what was common, it is in their log, and since then they only maintained it.
    if (
        common
        and any(move.number <= common.local.number for move in moves)
        and common.local.number <= local.number
        and common.remote.generation == remote.generation
        and _is_in_log(site, common.remote, remote)
        and _is_maintained(site, remote, common.remote.number)
    ):
        return True
    # A remote that stands at a state which we passed has nothing that is new.
    if any(move.snapshot == remote.snapshot for move in moves):
        return True
    # What was merged from there counts as contained, though its events got other numbers here.
    return any(
        _is_since(place, remote)
        and _is_passed(site, place, remote)
        and _is_maintained(site, remote, place.number)
        for place in _merged_places(moves)
    )


def is_ahead(store: Store, site: Site, branch: KnownBranch, local: Move, remote: Move) -> bool:
    """Whether the remote branch has all events of the local one, as far as can be told."""
    common = branch.common
    if (
        common
        and common.remote.generation == remote.generation
        and common.remote.number <= remote.number
        and _is_in_log(site, common.remote, remote)
        and common.local.generation == local.generation
        and _is_unchanged(store, local, common.local.number)
    ):
        return True
    # An empty branch is behind everything; else the remote has to have passed our very state, or
    # one that was only maintained here since.
    own_states = set(_same_events(store, local))
    return _is_empty(store, local) or any(
        move.snapshot in own_states for move in _late_moves(site, remote)
    )


def shared_place(
    store: Store, site: Site, branch: KnownBranch, local: Move, remote: Move
) -> MovePosition | str:
    """Return the newest place of the remote branch that both branches go on from, with its numbers,
    as far as can be told; or the reason why there is none."""
    common = branch.common
    moves = _since_rewind(store, local, over_merges=False)
    places = [place for place in _merged_places(moves) if _is_since(place, remote)]
    # A merge may be with another remote, so its move has to be there.
    passed = [place for place in places if _is_passed(site, place, remote)]
    if common and common.local.generation == local.generation and _is_since(common.remote, remote):
        passed += [common.remote] if _is_in_log(site, common.remote, remote) else []
    if passed:
        return max(passed, key=lambda place: place.number)
    if common is None:
        place = _named_on_both(store, site, local, remote)
        return place or "no state is known that both had: they have no past in common"
    if common.local.generation != local.generation:
        return (
            "it was rewound here (a rollback, an undo, or made again), or merged with another"
            " remote, since both had the same events"
        )
    if common.remote.generation != remote.generation:
        return (
            "it was rewound there (a rollback, a forced push or a merge) since both had the same"
            " events"
        )
    place = _named_on_both(store, site, local, remote)
    return place or "the move that both had in common is gone there"


def _is_since(place: MovePosition, remote: Move) -> bool:
    """Whether a place is one of the branch as it was not rewound since."""
    return place.generation == remote.generation and place.number <= remote.number


def _is_passed(site: Site, place: MovePosition, remote: Move) -> bool:
    """Whether the log of the remote branch has the move of a place."""
    move = site.move(remote.branch, place.number)
    return move is not None and move.snapshot == place.snapshot


def _named_on_both(store: Store, site: Site, local: Move, remote: Move) -> MovePosition | None:
    """Return the newest move of the remote branch that names a state which the local one names,
    too, both since their last rewinds.

    Of a remote that was just added nothing else is known, and one that was restored from a backup
    has no longer what is remembered of it.
    """
    moves = _since_rewind(store, local, over_merges=False)
    own_states = {move.snapshot for move in moves if move.op not in _REWINDS}
    late_moves = (move for move in _late_moves(site, remote) if move.op not in _REWINDS)
    shared_moves = (move for move in late_moves if move.snapshot in own_states)
    return next(map(place_of, shared_moves), None)


def _is_in_log(site: Site, place: MovePosition, remote: Move) -> bool:
    """Whether the remote branch still has a move: a registry may keep one of two that were made at
    once, and have acknowledged both."""
    if place.number >= remote.number:
        return place.snapshot == remote.snapshot
    move = site.move(remote.branch, place.number)
    # A move that is not kept any more was thinned out: what follows it is believed.
    return move is None or move.snapshot == place.snapshot


def _is_maintained(site: Site, remote: Move, since: int) -> bool:
    """Whether the remote branch was only maintained since a move."""
    if not since <= remote.number < since + _MOVES_MAX:
        return False
    numbers = range(since + 1, remote.number + 1)
    moves = (site.move(remote.branch, number) for number in numbers)
    return all(move is not None and move.op in MAINTENANCE for move in moves)


def _is_unchanged(store: Store, local: Move, since: int) -> bool:
    """Whether the local branch was only maintained since a move."""
    for move in store.refs.newest_first(local.branch):
        if move.number <= since:
            break
        if move.number <= local.number and move.op not in MAINTENANCE:
            return False
    return since <= local.number


def _same_events(store: Store, local: Move) -> Iterator[str]:
    """Yield the states of the local branch since which it was only maintained."""
    for move in _since_rewind(store, local, over_merges=False):
        yield move.snapshot
        if move.op not in MAINTENANCE:
            return


def _merged_places(moves: Iterable[Move]) -> Iterator[MovePosition]:
    """Yield the places that merges among moves name."""
    for note in filter(None, map(MergeNote.of, moves)):
        yield MovePosition(note.number, note.generation, note.snapshot)


def _since_rewind(store: Store, local: Move, over_merges: bool) -> Iterator[Move]:
    """Yield the moves of the local branch since its last rewind, the newest first; with
    `over_merges` since the last one that may have lost events."""
    generation = local.generation
    for move in store.refs.newest_first(local.branch):
        # The head may have moved since it was looked at; what came later is judged in the next
        # look.
        if move.number > local.number:
            continue
        if move.generation != generation:
            return
        yield move
        # A merge raised the generation by one, and lost nothing: it is counted back.
        generation -= over_merges and move.op == "merge"


def _late_moves(site: Site, remote: Move) -> Iterator[Move]:
    """Yield the late moves of the remote branch since its last rewind, the newest first."""
    for number in range(remote.number, max(remote.number - _MOVES_MAX, 0), -1):
        move = site.move(remote.branch, number)
        if move is None or move.generation != remote.generation:
            # A rewind behind it would make the numbers of later moves mean other events.
            return
        yield move


def _is_empty(store: Store, local: Move) -> bool:
    """Whether nothing was ever published on the local branch."""
    state = store.manifests.of(local)
    return not (state.next_seq or state.pages or state.recent or state.ids)


def command(branch: str, words: str) -> str:
    """Return a command for a branch, as it is typed."""
    option = "" if branch == "main" else f"--branch {shlex.quote(branch)} "
    return f"`lakelog {option}{words}`"


def refusal(url: str, branch: str, reason: str) -> Diverged:
    """Return the error for branches that cannot be merged."""
    return Diverged(
        f"{url}: branch {branch!r} cannot be merged: {reason}: nothing was changed; keep one side"
        f" by {command(branch, 'branch NAME')}, then {command(branch, 'pull --force')}; or"
        f" {command(branch, 'push --force')}"
    )


def both_changed(url: str, branch: str) -> Diverged:
    """Return the error for branches that both have events of their own, and can be merged."""
    return Diverged(
        f"branch {branch!r} has events that {url} lacks: join both by"
        f" {command(branch, 'pull --merge')}; or keep them with {command(branch, 'branch NAME')},"
        f" then {command(branch, 'pull --force')}; or {command(branch, 'push --force')}"
    )
