from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from reuselib.errors import IntegrityError, StoreError
from reuselib.lineage.packed import (
    FILES,
    LIST,
    MIN_PIECE,
    Contents,
    pack,
    tensor_path,
    unnamed,
    unpack,
)

RNG = np.random.default_rng(0)
WIDE, OTHER = (RNG.standard_normal((64, 64)).astype(np.float32) for _ in range(2))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def model(folder: Path, **weights: np.ndarray) -> Path:
    (folder / "lineage").mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    (folder / "lineage/manifest.json").write_text("{}")
    return folder


@pytest.fixture
def packing(tmp_path):
    """Packs a folder; gives the packed one."""
    (tmp_path / "tensors").mkdir()

    def run(source: Path) -> Path:
        target, scratch = tmp_path / "packed" / source.name, tmp_path / f"scratch-{source.name}"
        target.mkdir(parents=True)
        scratch.mkdir()
        pack(source, tmp_path / "tensors", target, scratch)
        return target

    return run


def unpacked(folder: Path, tmp_path: Path) -> dict[str, bytes]:
    target = tmp_path / "unpacked"
    target.mkdir()
    unpack(folder, tmp_path / "tensors", target)
    return content(target)


@pytest.mark.parametrize(
    "weights",
    [
        {"a": WIDE, "b": OTHER, "bias": np.ones(3, dtype=np.float16)},
        {"twice": WIDE, "same": WIDE.copy()},
        {"tiny": np.ones(2), "none": np.ones((0, 4))},
        {"a": WIDE.astype(np.float16), "z": np.ones(1, dtype=np.int8), "b": OTHER},
    ],
    ids=["mixed", "equal", "small", "types"],
)
def test_a_child_comes_back_byte_for_byte(packing, tmp_path, weights):
    source = model(tmp_path / "child", **weights)
    (source / "second.safetensors").write_bytes((source / "model.safetensors").read_bytes())

    packed = packing(source)

    assert unpacked(packed, tmp_path) == content(source)


def test_equal_tensors_are_on_the_disk_once_in_their_plain_bytes(packing, tmp_path):
    packing(model(tmp_path / "one", a=WIDE, b=OTHER, bias=np.ones(3)))
    packing(model(tmp_path / "two", renamed=WIDE, c=OTHER + 1))

    found = {path.name: path.read_bytes() for path in (tmp_path / "tensors").glob("*/*")}

    each = [WIDE.tobytes(), OTHER.tobytes(), (OTHER + 1).tobytes()]
    assert found == {hashlib.sha256(data).hexdigest(): data for data in each}


def test_what_is_too_small_for_a_file_of_its_own_stays_in_the_rest(packing, tmp_path):
    just, below = np.ones(MIN_PIECE, np.int8), np.ones(MIN_PIECE - 1, np.int8)

    packed = packing(model(tmp_path / "child", just=just, below=below))

    assert Contents.read(packed).tensors == {hashlib.sha256(just.tobytes()).hexdigest(): MIN_PIECE}


def test_a_damaged_tensor_that_is_there_already_is_replaced_not_relied_on(packing, tmp_path):
    packing(model(tmp_path / "one", a=WIDE))
    place = tensor_path(tmp_path / "tensors", hashlib.sha256(WIDE.tobytes()).hexdigest())
    place.write_bytes(bytes(len(WIDE.tobytes())))

    packing(model(tmp_path / "two", a=WIDE))

    assert place.read_bytes() == WIDE.tobytes()


def test_damage_anywhere_is_found_when_it_is_unpacked(packing, tmp_path):
    packed = packing(model(tmp_path / "child", a=WIDE, b=OTHER, bias=np.ones(3)))
    places = [
        path for top in (packed, tmp_path / "tensors") for path in top.rglob("*") if path.is_file()
    ]
    assert len(places) == 6
    for number, path in enumerate(places):
        data = path.read_bytes()
        for harmed in (data[:-1], data[:1], bytes([data[0] ^ 1]) + data[1:], b""):
            path.write_bytes(harmed)
            target = tmp_path / f"target-{number}"
            target.mkdir(exist_ok=True)
            for each in list(content(target)):
                (target / each).unlink()
            with pytest.raises(StoreError, match=r"is damaged.*\n|is damaged") as caught:
                unpack(packed, tmp_path / "tensors", target)
            assert "run again" in caught.value.fix
        path.write_bytes(data)

    assert unpacked(packed, tmp_path)


def test_a_missing_tensor_is_named(packing, tmp_path):
    packed = packing(model(tmp_path / "child", a=WIDE))
    digest = hashlib.sha256(WIDE.tobytes()).hexdigest()
    tensor_path(tmp_path / "tensors", digest).unlink()

    with pytest.raises(StoreError, match=f"tensor {digest} is missing"):
        unpacked(packed, tmp_path)


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..\\out"])
def test_a_list_cannot_write_outside(packing, tmp_path, name):
    packed = packing(model(tmp_path / "child", a=WIDE))
    text = (packed / LIST).read_text().replace('"config.json"', f'"{name}"'.replace("\\", "\\\\"))
    (packed / LIST).write_text(text)

    with pytest.raises(StoreError, match="leads out"):
        unpacked(packed, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"version":2,"digests":{},"weights":{}}', '{"version":1}',
             '{"version":1,"digests":{},"weights":{"x":[[1,2,3]]}}',
             '{"version":1,"digests":{},"weights":{"x":[["1",""]]}}',
             '{"version":1,"digests":{},"weights":{"x":[[1,"../../x"]]}}',
             '{"version":1,"digests":{},"weights":{"x":3}}'],
)  # fmt: skip
def test_a_list_that_is_none_is_refused(packing, tmp_path, text):
    packed = packing(model(tmp_path / "child", a=WIDE))
    (packed / LIST).write_text(text)

    with pytest.raises(StoreError, match="is damaged"):
        Contents.read(packed)


def test_a_weight_file_that_is_malformed_is_not_packed(packing, tmp_path):
    source = model(tmp_path / "child", a=WIDE)
    (source / "model.safetensors").write_bytes(b"x" * 100)

    with pytest.raises(IntegrityError):
        packing(source)


def test_tensors_that_nobody_names_are_told(packing, tmp_path):
    packing(model(tmp_path / "one", a=WIDE))
    stray = tensor_path(tmp_path / "tensors", "ab" * 32)
    stray.parent.mkdir()
    stray.write_bytes(b"x")

    assert list(unnamed(tmp_path / "packed", tmp_path / "tensors")) == [stray]


def test_the_rest_of_a_packed_child_can_be_read_as_it_is(packing, tmp_path):
    source = model(tmp_path / "child", a=WIDE)

    packed = packing(source)

    assert (packed / FILES / "lineage/manifest.json").read_text() == "{}"
    assert load_file(source / "model.safetensors")["a"].tolist() == WIDE.tolist()
