"""What a teacher said, on disk: whole, checked, and never anybody else's."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace

import pytest
import torch
from toys import Points, points

from reuselib.errors import StoreError
from reuselib.lineage.store import Store
from reuselib.testing.tiny import tiny_bert
from reuselib.training import notebook
from reuselib.training.lessons import Lesson
from reuselib.training.notebook import Subject, encoding_digest, find, write

SUBJECT = Subject(("aa", "bb"), "rows", "tokens", Lesson(), "cpu, torch 2")


def parts(num_rows=10, per_part=4):
    for start in range(0, num_rows, per_part):
        rows = torch.arange(start, min(start + per_part, num_rows))
        yield {
            "rows": rows,
            "targets": torch.ones(len(rows), dtype=torch.int64),
            "logits": rows[:, None] * torch.tensor([1.0, -1.0]),
            "logits.count": torch.ones(len(rows), dtype=torch.int64),
        }


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def folders(store):
    return sorted((store.path / "lessons").glob("*"))


def test_what_was_written_is_found(store):
    assert find(store, SUBJECT) is None

    write(store, SUBJECT, parts(), 10)

    kept = find(store, SUBJECT)
    assert kept is not None
    assert kept.notes.of([9, 0, 4])["logits"].equal(torch.tensor([[9.0, -9], [0, 0], [4, -4]]))
    assert kept.num_bytes > 0
    assert [folder.name for folder in folders(store)] == [SUBJECT.key]


def test_it_is_spread_over_files_of_bounded_size(store, monkeypatch):
    monkeypatch.setattr(notebook, "FILE_BYTES", 1)

    kept = write(store, SUBJECT, parts(), 10)

    assert len(list(folders(store)[0].glob("*.safetensors"))) == 3
    assert kept.notes.of([5])["logits"].tolist() == [[5.0, -5.0]]


@pytest.mark.parametrize(
    "other",
    [
        {"teacher": ("aa",)},
        {"rows": "others"},
        {"encoding": "other tokens"},
        {"lesson": Lesson(hidden_states=(-1,))},
        {"lesson": Lesson(top_k=3, temperature=2.0)},
        {"machine": "cuda, torch 2"},
    ],
    ids=str,
)
def test_another_subject_is_another_lesson_even_under_the_same_name(store, other):
    write(store, SUBJECT, parts(), 10)
    stranger = replace(SUBJECT, **other)

    assert stranger.key != SUBJECT.key
    assert find(store, stranger) is None
    shutil.copytree(store.lessons.place(SUBJECT.key), store.lessons.place(stranger.key))
    assert find(store, stranger) is None


def _flip(folder):
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _more(folder):
    (folder / "00009.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")


DAMAGES = {
    "a bit": _flip,
    "a file more": _more,
    "a file less": lambda folder: next(folder.glob("*.safetensors")).unlink(),
    "no title": lambda folder: (folder / notebook.TITLE).unlink(),
    "a title that is none": lambda folder: (folder / notebook.TITLE).write_text("[]"),
    "a link": lambda folder: (folder / "link").symlink_to("/etc/hostname"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lesson_counts_as_absent_and_is_written_anew(store, damage):
    write(store, SUBJECT, parts(), 10)
    DAMAGES[damage](store.lessons.place(SUBJECT.key))

    assert find(store, SUBJECT) is None

    assert write(store, SUBJECT, parts(), 10).notes.of([3])["logits"].tolist() == [[3.0, -3.0]]


def test_a_lesson_that_is_there_already_is_kept(store):
    """As another process may have been faster."""
    write(store, SUBJECT, parts(), 10)
    before = next(folders(store)[0].glob("*.safetensors")).stat().st_ino

    write(store, SUBJECT, parts(), 10)

    assert next(folders(store)[0].glob("*.safetensors")).stat().st_ino == before


def test_a_full_disk_is_told_and_leaves_nothing(store, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr("reuselib.training.notebook.save_tensors", full)

    with pytest.raises(StoreError, match="cannot write") as caught:
        write(store, SUBJECT, parts(), 10)

    assert "free some space" in caught.value.fix
    assert folders(store) == []
    assert list((store.path / "tmp").glob("*")) == []


def test_lack_of_room_is_told_after_the_first_file(store, monkeypatch):
    monkeypatch.setattr(notebook, "FILE_BYTES", 1)
    monkeypatch.setattr(
        notebook.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0)
    )
    asked = []

    def noted():
        for part in parts():
            asked.append(part)
            yield part

    with pytest.raises(StoreError, match="6 more rows") as caught:
        write(store, SUBJECT, noted(), 10)

    assert "top_k" in caught.value.fix
    assert len(asked) == 1
    assert folders(store) == []


def test_a_teacher_that_fails_leaves_nothing(store):
    def failing():
        yield from parts(4)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write(store, SUBJECT, failing(), 10)

    assert folders(store) == []


def test_the_mean_of_what_is_lost_is_kept(store):
    told = [
        {
            "rows": torch.tensor([row]),
            "targets": torch.tensor([2]),
            "top": torch.tensor([[0.5], [lost]]).log(),
            "top.count": torch.tensor([2]),
        }
        for row, lost in enumerate((0.7, 0.9))
    ]

    assert write(store, SUBJECT, told, 2).lost_mass == pytest.approx((0.5 + 0.3 + 0.5 + 0.1) / 4)


def test_the_title_is_plain_json_without_a_path(store):
    write(store, SUBJECT, parts(), 10)

    text = (store.lessons.place(SUBJECT.key) / notebook.TITLE).read_text()

    assert json.loads(text)["subject"]["teacher"] == ["aa", "bb"]
    assert str(store.path) not in text


class TestEncoding:
    def test_every_token_counts(self, tmp_path):
        from reuselib.tasks.text_classification import TextClassification

        task = TextClassification(labels=("bad", "good"))
        processor = task.processor(tiny_bert(tmp_path))
        rows = [{"text": "good film", "label": "good"}, {"text": "bad", "label": "bad"}]
        examples = task.encode(rows, processor)
        digest = encoding_digest(task, processor, examples)

        assert encoding_digest(task, processor, task.encode(rows, processor)) == digest
        examples[1]["input_ids"][0] += 1
        assert encoding_digest(task, processor, examples) != digest
        assert encoding_digest(replace(task, max_length=9), processor, examples) != digest

    def test_an_image_processor_counts_by_its_settings(self):
        from transformers import ViTImageProcessorPil

        small, large = (ViTImageProcessorPil(size={"height": n, "width": n}) for n in (8, 16))

        digests = {encoding_digest(Points(), each, points(2)) for each in (small, large, small)}

        assert len(digests) == 2

    def test_without_a_processor_the_task_says_everything(self):
        assert encoding_digest(Points(), None, []) == encoding_digest(Points(), None, points(2))
