"""The topic of an example. The label it came with, or else a cluster of its instruction's words.

Imports scikit-learn, inside the functions that need it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.split import Split
from fccl.specs import named_seed

if TYPE_CHECKING:
    import numpy as np

UNNAMED = "other"  # a cluster none of whose texts has a word that counts
NAME_TERMS = 3
_VOCABULARY = 8192  # terms at most
_ROLE_WORDS = {"system", "user", "assistant"}  # a conversation's labels say nothing of its topic
_DIMENSIONS = 64  # of the latent semantic space in which the clusters are made


def with_topics(
    sft: Split[SftExample], va: Split[PreferencePair], num_topics: int, seed: int
) -> tuple[Split[SftExample], Split[PreferencePair]]:
    """The same splits, every example with a topic. An example that has a label keeps it; all others are clustered
    together.

    The clusters are fitted on the training instructions of both kinds, so that SFT and VA share their topics.
    """
    everything = [
        example.instruction
        for split in (sft, va)
        for part in split.parts().values()
        for example in part
        if not example.topic
    ]
    training = [example.instruction for split in (sft, va) for example in split.train if not example.topic]
    if not everything:
        return sft, va
    names = dict(zip(everything, text_topics(training or everything, everything, num_topics, seed), strict=True))
    return _label(sft, names), _label(va, names)


def _label(split: Split[Example], names: dict[str, str]) -> Split[Example]:
    return Split(
        *(
            tuple(example if example.topic else replace(example, topic=names[example.instruction]) for example in part)
            for part in split.parts().values()
        )
    )


def text_topics(fit_on: Sequence[str], texts: Sequence[str], num_topics: int, seed: int) -> list[str]:
    """The topic's name for each of `texts`: at most `num_topics` k-means clusters of TF-IDF vectors, fitted on
    `fit_on`.

    The vectors are reduced to a latent semantic space first (Deerwester et al. 1990): among raw TF-IDF vectors of short
    texts, k-means makes one large cluster and many of a handful. A cluster is called by its three heaviest terms.
    Deterministic for a seed.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    stop_words = sorted(ENGLISH_STOP_WORDS | _ROLE_WORDS)
    vectorizer = TfidfVectorizer(
        stop_words=stop_words, sublinear_tf=True, max_features=_VOCABULARY, max_df=0.5 if len(fit_on) > 2 else 1.0
    )
    try:
        fitted = vectorizer.fit_transform(fit_on)
    except ValueError:  # no text has a word that counts
        return [UNNAMED] * len(texts)
    with threadpool_limits(
        1
    ):  # the last bits of a sum depend on the number of threads, and a cluster may depend on the last bits
        clusters, labels = _cluster(fitted, vectorizer.transform(texts), num_topics, named_seed(seed, "topics") % 2**32)
    names = _names(fitted, clusters, vectorizer.get_feature_names_out())
    return [names.get(label, UNNAMED) for label in labels.tolist()]


def _cluster(fitted: Any, vectors: Any, num_topics: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster numbers of the rows of `fitted` and of `vectors`, both sparse (rows, terms)."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    reduce = [TruncatedSVD(_DIMENSIONS, random_state=seed)] if min(fitted.shape) > _DIMENSIONS else []
    model = make_pipeline(*reduce, Normalizer(), KMeans(min(num_topics, fitted.shape[0]), n_init=4, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # fewer distinct texts than clusters: then some clusters stay empty, which is right
        model.fit(fitted)
    return model.predict(fitted), model.predict(vectors)


def _names(vectors: Any, labels: np.ndarray, terms: np.ndarray) -> dict[int, str]:
    """A distinct name for each cluster number: the terms that outweigh their average most, equal ones in the order of
    the alphabet.
    """
    average = vectors.mean(axis=0).A1
    names: dict[int, str] = {}
    uses: Counter[str] = Counter()
    for label in sorted(set(labels.tolist())):
        weights = vectors[labels == label].mean(axis=0).A1 - average * (len(set(labels.tolist())) > 1)
        heaviest = [term for weight, term in sorted(zip(-weights, terms, strict=True))[:NAME_TERMS] if weight < 0]
        name = ", ".join(heaviest) or UNNAMED
        uses[name] += 1
        names[label] = name if uses[name] == 1 else f"{name} ({uses[name]})"
    return names
