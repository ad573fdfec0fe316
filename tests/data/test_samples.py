"""The samples are what they say, the same every time, and cheap to recognise."""

import subprocess
import sys
from collections import Counter

import pytest

from reuselib.data import Data, samples
from reuselib.errors import DataError, MissingExtra

pytest.importorskip("textblob", reason="needs the extra `samples`")


def labels(rows):
    return Counter(row["label"] for row in rows)


def words(rows):
    return {row["text"].split(":")[0].lower() for row in rows}


def test_senses_have_two_balanced_classes():
    splits = Data(source="sample:senses").load()

    assert (len(splits.train), len(splits.test)) == (1414, 283)
    assert set(labels(splits.train)) == {"negative", "positive"}
    for rows in (splits.train, splits.test):
        assert max(labels(rows).values()) < 0.6 * len(rows)
    assert splits.train[0].keys() == {"text", "label"}
    assert list(splits.facts["packages"]) == ["textblob"]


def test_senses3_adds_the_neutral_ones_and_keeps_the_sides():
    two, three = Data(source="sample:senses").load(), Data(source="sample:senses3").load()

    assert (len(three.train), len(three.test)) == (2168, 469)
    assert [row for row in three.train if row["label"] != "neutral"] == two.train
    assert [row for row in three.test if row["label"] != "neutral"] == two.test


@pytest.mark.parametrize("name", ["senses", "senses3"])
def test_no_word_is_on_both_sides_and_no_text_is_there_twice(name):
    splits = Data(source=f"sample:{name}").load()

    texts = [row["text"] for row in [*splits.train, *splits.test]]
    assert not words(splits.train) & words(splits.test)
    assert len(set(texts)) == len(texts)


def test_a_sense_with_several_tags_counts_by_their_mean():
    rows = Data(source="sample:senses3").load()
    by_text = {row["text"]: row["label"] for row in [*rows.train, *rows.test]}

    # Tagged 0.0 and 0.4; tagged -0.2, -0.4 and 0.2 or so.
    assert by_text["absorbing: capable of arousing and holding the attention"] == "positive"


def test_a_simple_method_finds_the_classes_but_not_easily():
    linear_model = pytest.importorskip("sklearn.linear_model")
    from sklearn.feature_extraction.text import TfidfVectorizer

    splits = Data(source="sample:senses").load()
    vectors = TfidfVectorizer()
    train = vectors.fit_transform([row["text"] for row in splits.train])
    test = vectors.transform([row["text"] for row in splits.test])
    model = linear_model.LogisticRegression(max_iter=1000)
    model.fit(train, [row["label"] for row in splits.train])

    assert 0.70 < model.score(test, [row["label"] for row in splits.test]) < 0.80


def test_digits_are_those_of_scikit_learn():
    np = pytest.importorskip("numpy")
    datasets = pytest.importorskip("sklearn.datasets")

    splits = Data(source="sample:digits").load()

    rows = [*splits.train, *splits.test]
    assert {(row["image"].shape, row["image"].dtype.name) for row in rows} == {((8, 8), "uint8")}
    assert max(row["image"].max() for row in rows) == 255
    original = datasets.load_digits()
    expected = {
        (np.uint8(image * 255 // 16).tobytes(), int(label))
        for image, label in zip(original.images, original.target, strict=True)
    }
    assert {(row["image"].tobytes(), row["label"]) for row in rows} == expected
    assert len(rows) == 1797
    assert 0.15 < len(splits.test) / len(rows) < 0.25


def test_recognising_the_senses_imports_nothing_heavy():
    code = (
        "import sys; from reuselib.data import Data; Data(source='sample:senses').load();"
        "heavy = {'torch', 'datasets', 'textblob', 'numpy', 'sklearn', 'pyarrow', 'PIL'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_missing_package_names_the_extra():
    with pytest.raises(MissingExtra, match=r"reuselib\[samples\]"):
        samples._package_file("no-such-package", "no_such_module", "file.xml")


def test_a_document_type_is_refused_before_any_entity_is_expanded(tmp_path):
    entities = '<!DOCTYPE s [<!ENTITY a "ha">]><s><word form="&a;"/></s>'
    (tmp_path / "bomb.xml").write_text(entities)
    (tmp_path / "broken.xml").write_text("<s><word></s>")

    with pytest.raises(DataError, match="declares a document type"):
        samples._xml_attributes(tmp_path / "bomb.xml", "word")
    with pytest.raises(DataError, match="not well-formed"):
        samples._xml_attributes(tmp_path / "broken.xml", "word")
