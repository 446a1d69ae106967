"""Bugs of erasure: what is wrong, and where, which text of a function is replaced by which."""

from __future__ import annotations

STORE, MAINTAIN = "lakelog.store", "lakelog.maintain"
ERASED, ERASURE = "lakelog.erased", "lakelog.erasure"
ERASURE_BUGS: tuple[tuple[str, str, str, str], ...] = (
    ("a filter left", f"{ERASURE}.derived:clean", "store.paths.bloom(key), ", ""),
    ("a word index left", f"{ERASURE}.derived:clean", "store.paths.words(key), ", ""),
    ("cached views left", f"{ERASURE}.derived:clean", "in _ANSWERS", "in ()"),
    ("old texts in moves", f"{ERASED}.sweep:sweep", "if stripped is not None", "if False"),
    (
        "old texts in packed moves",
        f"{STORE}.erased_states:ErasedStates.stripped",
        "if lines != moves else None",
        "if not moves else None",
    ),
    ("old pages left", f"{ERASED}.sweep:sweep", "list(_obsolete(store))", "()"),
    ("old segments left", f"{ERASED}.sweep:sweep", "_segments(store)", "()"),
    (
        "quarantined lines left",
        f"{ERASURE}.selection:Chooser.candidates",
        'e.kind != "events" or e.key in matching',
        "e.key in matching",
    ),
    (
        "subjects of entries left",
        f"{ERASURE}.rewriting:Redactor._entry",
        "self._names_subject(entry)",
        "False",
    ),
    ("totals as before", f"{ERASURE}.rewriting:Redactor._totals", "- before + after", ""),
    ("no move on branches", f"{ERASURE}.erasing:ErasureRun._move", "publish(", "(lambda *_: 0)("),
    (
        "writers not told",
        f"{STORE}.writer:Writer._require_lake",
        "self._config is not None",
        "False",
    ),
    (
        "a held log not named",
        f"{ERASURE}.status:_status",
        "for path, tables in wals",
        "for path, tables in ()",
    ),
    ("an export not noted", f"{ERASED}.copies:note", "disk.make_dirs(paths.copies)", "return"),
    ("copies not named", f"{ERASURE}.outside:places", "copies.listing(store.paths)", "()"),
    ("a copy taken for clean", f"{ERASURE}.outside:is_clean", 'if place["done"]', "if True"),
    (
        "a backup not swept",
        f"{MAINTAIN}.hotcopy:_copy",
        "sweep.sweep(load(copy_paths.root))",
        "pass",
    ),
    ("set aside files not searched", f"{ERASURE}.leftovers:_searched", "yield path", "pass"),
    (
        "old texts of a pull believed",
        f"{STORE}.manifest:Manifests.of",
        "and not self._erased.holds(ref.snapshot)",
        "",
    ),
    (
        "appends not refused",
        f"{ERASURE}.on_lake:LakeErasure._refuse_erased",
        "if self.store.erased.refresh()",
        "if False",
    ),
    (
        "files not refused",
        "lakelog.ingest.event_segments:EventSegments.add",
        "self.refusal.without(table)",
        "table",
    ),
    (
        "frames not refused",
        f"{MAINTAIN}.seal:Sealer._write",
        "Refusal(store.paths).without(rows.events(connection, frames))",
        "rows.events(connection, frames)",
    ),
    (
        "pulls not refused",
        "lakelog.remotes.fetches:_Fetch._receive",
        "self._refuse_erased(fresh)",
        "pass",
    ),
    ("places not known", f"{ERASED}.refusal:Refusal.mask", "if rows.places and", "if False and"),
    (
        "contents not known",
        f"{ERASED}.refusal:Refusal.mask",
        "if rows.contents and",
        "if False and",
    ),
    (
        "leaves not kept",
        f"{ERASURE}.erasing:signed_leaves",
        "return proofs",
        "return {} and proofs",
    ),
    (
        "a state in memory believed",
        f"{STORE}.manifest:Manifests._forget_erased",
        "self.forget()",
        "pass",
    ),
)
