from __future__ import annotations

import numpy as np

from reuselib.tasks import baseline
from reuselib.testing.tiny import tiny_rows


def test_words_that_tell_are_learned():
    rows = tiny_rows(128)
    texts = [row["text"] for row in rows]
    targets = [row["label"] == "good" for row in rows]

    assert baseline.score(texts, targets, texts, targets) == 1.0


def test_several_labels_are_scored_by_micro_f1():
    texts = ["red wool", "blue wool", "red silk", "blue silk"] * 5
    targets = [np.array(["red" in text, "silk" in text], dtype=np.float32) for text in texts]

    assert baseline.score(texts, targets, texts, targets) == 1.0


def test_texts_without_words_have_no_reference():
    assert baseline.score(["!", "?"], [0, 1], ["!"], [0]) is None
