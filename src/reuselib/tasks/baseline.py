"""What a linear model on word counts reaches: the figure that a pre-trained model has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_ROWS = 20_000
NAME = "TF-IDF + logistic regression"


def score(
    texts: Sequence[str],
    targets: Sequence[Any],
    test_texts: Sequence[str],
    test_targets: Sequence[Any],
) -> float | None:
    """Accuracy on the test rows, or micro F1 if each target is an array over labels.

    None without scikit-learn, or if the texts hold no words.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline
    except ImportError:
        return None
    import numpy as np

    truth = np.asarray(test_targets)
    linear = LogisticRegression(C=10.0, max_iter=1000)
    many = truth.ndim == 2
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        OneVsRestClassifier(linear) if many else linear,
    )
    try:
        predicted = model.fit(texts, np.asarray(targets)).predict(test_texts)
    except ValueError:  # Nothing to learn from: no words, or one label only.
        return None
    if many:
        total = float(truth.sum() + predicted.sum())
        return 2 * float((truth * predicted).sum()) / total if total else 0.0
    return float((predicted == truth).mean())
