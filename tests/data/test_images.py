"""Folders of images: a folder a class, decoded on access, counted by the bytes of the files."""

import shutil

import pytest

from reuselib.data import Data
from reuselib.data.images import ImageRows
from reuselib.errors import DataError, SourceError

Image = pytest.importorskip("PIL.Image")


def paint(folder, label, count):
    (folder / label).mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (4, 3), (index, len(label), 0)).save(folder / label / f"{index}.png")


def test_classes_below_the_folder_are_one_split(tmp_path):
    paint(tmp_path, "cat", 20)
    paint(tmp_path, "horse", 20)

    splits = Data(source=f"imagefolder:{tmp_path}").load()

    assert len(splits.train) + len(splits.test) == 40
    assert splits.columns == ("image", "label")
    assert {row["label"] for row in splits.train} == {"cat", "horse"}
    assert splits.train[0]["image"].size == (4, 3)
    assert splits.source == f"imagefolder:{tmp_path.name}"


def test_folders_may_hold_splits(tmp_path):
    paint(tmp_path / "train", "cat", 3)
    paint(tmp_path / "train", "dog", 3)
    paint(tmp_path / "test", "dog", 2)

    splits = Data(source=f"imagefolder:{tmp_path}", train="train[:5]").load()

    assert (len(splits.train), len(splits.test)) == (5, 2)
    assert isinstance(splits.train, ImageRows)
    assert [row["label"] for row in splits.train] == ["cat"] * 3 + ["dog"] * 2


def test_the_digest_goes_with_the_images(tmp_path):
    paint(tmp_path / "a", "cat", 20)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = Data(source=f"imagefolder:{tmp_path / 'a'}").load().digest

    assert Data(source=f"imagefolder:{tmp_path / 'b'}").load().digest == before
    Image.new("RGB", (4, 3), (99, 99, 99)).save(tmp_path / "b/cat/7.png")
    assert Data(source=f"imagefolder:{tmp_path / 'b'}").load().digest != before


def test_other_and_hidden_files_are_passed_over(tmp_path):
    paint(tmp_path, "cat", 2)
    paint(tmp_path / ".cache", "dog", 2)
    (tmp_path / "cat" / "notes.txt").write_text("a cat")

    assert len(ImageRows(sorted((tmp_path / "cat").glob("*.png")))) == 2
    assert len(Data(source=f"imagefolder:{tmp_path}").load().train) == 1


def test_a_folder_without_classes_is_refused(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "loose.png")
    with pytest.raises(SourceError, match="no classes can be made out"):
        Data(source=f"imagefolder:{tmp_path}").load()
    paint(tmp_path, "cat", 1)
    with pytest.raises(SourceError, match="images lie 0 and 1 folders deep"):
        Data(source=f"imagefolder:{tmp_path}").load()


def test_a_file_that_is_no_image_is_refused_when_the_data_is_loaded(tmp_path):
    paint(tmp_path, "cat", 10)
    (tmp_path / "cat" / "5.png").write_bytes(b"not an image")

    with pytest.raises(DataError, match=r"cannot read the image 'cat/5.png'"):
        Data(source=f"imagefolder:{tmp_path}").load()


def test_an_image_that_breaks_off_is_refused_when_it_is_decoded(tmp_path):
    paint(tmp_path, "cat", 2)
    file = tmp_path / "cat" / "1.png"
    file.write_bytes(file.read_bytes()[:50])

    with pytest.raises(DataError, match=r"cannot read the image 'cat/1.png'"):
        ImageRows([file])[0]
