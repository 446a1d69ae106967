"""Near duplicates: exact Jaccard decides, and crowds of alike texts end in bounded time."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from lakelog.train import cluster, tokens
from tests.support import trainsets


def words(text: str, size: int = 1) -> set[tuple[str, ...]]:
    """Return the shingles of a text by the rule's own words."""
    found = re.findall(r"[a-z0-9\u0080-\U0010ffff]+", text.lower())
    if len(found) < size:
        return {tuple(found)} if found else set()
    return {tuple(found[n : n + size]) for n in range(len(found) - size + 1)}


def jaccard(one: str, two: str, size: int = 1) -> float:
    a, b = words(one, size), words(two, size)
    return len(a & b) / len(a | b) if a | b else 0.0


def clustered(texts: list[str | None], threshold: float = 0.8, size: int = 1) -> cluster.Clusters:
    def chunks() -> Iterator[pa.Array]:
        for start in range(0, len(texts), 100):
            yield pa.array(texts[start : start + 100], pa.string())

    return cluster.clusters(chunks, threshold, size)


TRICKY = ["", None, "ß ẞ Ä ä", "a-b_c a,b", "日本語 テスト", "x" * 300_000, "1 2 3", "  \n\t "]


@pytest.mark.parametrize("size", [1, 3])
def test_shingles_are_those_of_the_rule(size: int) -> None:
    """Distinct hashes count what a plain reading of the rule counts, for odd texts too."""
    texts = [*TRICKY, *trainsets.texts(50)]
    made = tokens.distinct_hashes(tokens.shingle_sets(pa.array(texts, pa.string()), size))
    lengths = made.lengths.tolist()
    assert lengths == [len(words(t, size)) if t else 0 for t in texts]


@pytest.mark.parametrize("size", [1, 2])
def test_the_index_is_exact(size: int) -> None:
    """Pairs of random texts of a small vocabulary have the Jaccard index of their sets."""
    rng = random.Random(4)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randrange(1, 9))) for _ in range(60)]
    sets = tokens.distinct_hashes(tokens.shingle_sets(pa.array(texts), size))
    pairs = np.array(list(itertools.combinations(range(60), 2)))
    found = cluster.jaccard(sets, pairs[:, 0], pairs[:, 1])
    wanted = [jaccard(texts[a], texts[b], size) for a, b in pairs]
    assert np.allclose(found, wanted)


def edited(text: str, share: float, rng: random.Random) -> str:
    """Replace so many words that about this Jaccard index is left."""
    said = text.split(" ")
    for place in rng.sample(range(len(said)), int(len(said) * (1 - share) / (1 + share))):
        said[place] = f"n{rng.randrange(10**9)}"
    return " ".join(said)


def test_planted_pairs_are_found_and_no_others() -> None:
    """Pairs at an index of 0.8 are found, those at 0.6 are not."""
    rng = random.Random(2)
    texts = [t for n in (20, 60, 150) for t in trainsets.texts(300, n, words=n)]
    near = [edited(t, 0.82, rng) for t in texts[::3]]
    far = [edited(t, 0.6, rng) for t in texts[1::3]]
    everything: list[str | None] = [*texts, *near, *far]
    first = clustered(everything).roots
    pairs = [(n * 3, len(texts) + n) for n in range(len(near))]
    true = [p for p in pairs if jaccard(texts[p[0]], near[p[1] - len(texts)]) >= 0.8]
    assert len(true) > 200
    found = [p for p in true if first[p[0]] == first[p[1]]]
    assert len(found) >= 0.98 * len(true)
    assert (first != np.arange(len(first))).sum() == len(found)


def test_clusters_are_what_is_connected() -> None:
    """A text is in one cluster with what it is near to, and with what that is near to."""
    base = [f"w{n}" for n in range(40)]
    chain = [" ".join([*base[4 * k :], *(f"x{k}{n}" for n in range(4 * k))]) for k in range(3)]
    assert clustered([chain[0], "else", chain[1], None, chain[2]]).roots.tolist() in (
        [0, 1, 0, 3, 0],
        [0, 1, 0, 3, 4],
        [0, 1, 2, 3, 2],
        [0, 1, 2, 3, 4],
    )
    same = clustered(["a b c", "x", "C, b; A!", None, None, ""])
    assert same.roots.tolist() == [0, 1, 0, 3, 4, 5]


def test_a_crowd_of_alike_texts_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny vocabulary buckets are crowded; pairs looked at stay bounded."""
    rng = random.Random(1)
    texts: list[str | None] = [" ".join(rng.choices("abcdefghijkl", k=6)) for _ in range(6000)]
    looked = []
    consider = cluster._NearSearch._consider

    def counting(self: cluster._NearSearch, left: object, right: object) -> None:
        looked.append(len(left))  # type: ignore[arg-type]
        consider(self, left, right)

    monkeypatch.setattr(cluster._NearSearch, "_consider", counting)
    made = clustered(texts)
    bands, _ = cluster.bands_for(0.8)
    assert made.crowded > 0
    assert sum(looked) <= bands * len(texts) * cluster.CROWD
    equal = {}
    for place, text in enumerate(texts):
        kin = equal.setdefault(frozenset(words(text or "")), made.roots[place])
        assert kin == made.roots[place]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_catch_what_is_at_the_threshold(threshold: float) -> None:
    """A pair at the threshold meets in some band with 99.5 %, within the places allowed."""
    bands, width = cluster.bands_for(threshold)
    assert bands * width <= cluster.PLACES_MAX
    assert 1 - (1 - min(threshold, 0.999) ** width) ** bands >= 0.995
