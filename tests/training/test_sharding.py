"""FSDP2 on CPU processes: torch's `fully_shard` over gloo, held against the same training of a whole copy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import shards
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import ranks
from reuselib.errors import TrainingError
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert, tiny_llama
from reuselib.training.sharding import Sharding, units
from reuselib.training.shares import cut_like, is_sharded, local, total_norm, whole

SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    # as `accelerate config` has it: transformers would leave all weights but those of the first process empty
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with what one process made, and what two made together."""
    folder = ranks.made_once(tmp_path_factory, "shards", work)
    return folder / "alone", folder / "together"


def work(folder: Path) -> None:
    """Let one process work, and two."""
    for base in (tiny_bert(folder / "bert", head=True), tiny_llama(folder / "llama")):
        config = json.loads((base / "config.json").read_text())
        calm = {k: 0.0 if "drop" in k and isinstance(v, float) else v for k, v in config.items()}
        (base / "config.json").write_text(json.dumps(calm))
    write_rows(folder / "rows")
    shards.main(folder, folder / "alone")
    ranks.run(Path(shards.__file__), folder, folder / "together", **SHARDED)


def read(folder: Path, name: str, rank: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return (
        load_file(folder / f"{name}.{rank}.safetensors"),
        json.loads((folder / f"{name}.{rank}.json").read_text()),
    )


@pytest.mark.parametrize("name", ["everything", "twice"])
def test_shares_end_in_the_weights_of_a_whole_copy(results: tuple[Path, Path], name: str) -> None:
    (one, known), (other, found) = (read(folder, name) for folder in results)

    assert found["facts"] == known["facts"] | {"num_processes": 2, "sharding": "fsdp2"}
    assert one.keys() == other.keys()
    for tensor in one.keys() - {"seen"}:
        torch.testing.assert_close(other[tensor], one[tensor], rtol=0, atol=1e-6, msg=tensor)
    for figure in known["metrics"].keys() - {"seconds", "examples_per_second"}:
        assert found["metrics"][figure] == pytest.approx(known["metrics"][figure], rel=1e-5), figure


def test_zeros_stay_and_frozen_weights_keep_every_bit(results: tuple[Path, Path]) -> None:
    trained, _ = read(results[1], "everything")
    start = shards.tower().state_dict()

    assert bool((trained["blocks.1.inner.weight"][:, ::2] == 0).all())
    assert bool((trained["blocks.1.inner.weight"][:, 1::2] != 0).all())
    assert torch.equal(trained["blocks.0.outer.weight"], start["blocks.0.outer.weight"])
    assert not torch.equal(trained["blocks.0.inner.weight"], start["blocks.0.inner.weight"])
    assert not torch.equal(trained["blocks.0.gain"], start["blocks.0.gain"])


@pytest.mark.parametrize("name", list(shards.TRAININGS))
def test_every_process_gets_back_a_whole_module_as_it_was(
    results: tuple[Path, Path], name: str
) -> None:
    (first, found), (second, other) = (read(results[1], name, rank) for rank in (0, 1))

    assert found["intact"]
    assert other["intact"]
    for tensor in first:
        assert torch.equal(first[tensor], second[tensor]), tensor


def test_the_trail_ends_with_the_whole_weights_and_the_first_process_has_it(
    results: tuple[Path, Path],
) -> None:
    (_, known), (_, found) = (read(folder, "twice") for folder in results)

    assert found["last"] == found["own"]
    assert found["steps"] == known["steps"]
    assert "steps" not in read(results[1], "twice", rank=1)[1]


def test_an_interrupted_training_goes_on_bit_for_bit(results: tuple[Path, Path]) -> None:
    (one, known), (other, found) = (read(results[1], name) for name in ("whole", "interrupted"))

    for tensor in one.keys() - {"seen"}:
        assert torch.equal(one[tensor], other[tensor]), tensor
    assert found["last"] == found["own"] == known["last"]


def test_shares_and_whole_copies_do_not_go_on_from_one_another(
    results: tuple[Path, Path], tmp_path: Path
) -> None:
    made = next((results[1] / "store").rglob("*-end"), None) or next(
        folder for folder in (results[1] / "store").rglob("*") if (folder / "state.json").is_file()
    )
    saver = shards.Saver(
        place=shards.Checkpoints(tmp_path, "ab" * 32), training=0, inputs={"seed": 0}, resume=made
    )

    with pytest.raises(TrainingError, match="num_processes: 2 there, 1 here"):
        shards.train(shards.PATIENT, saver=saver)


def test_a_training_begins_anew_where_the_number_of_processes_is_another(
    results: tuple[Path, Path], tmp_path: Path
) -> None:
    made = next(path.parent for path in (results[1] / "store").rglob("0-*/state.json"))
    place = shards.Checkpoints(tmp_path, "ab" * 32)
    shutil.copytree(made, place.folder / made.name)
    told: list[str] = []
    saver = shards.Saver(place=place, training=0, inputs={"seed": 0}, tell=told.append)

    anew, _ = shards.train(shards.PATIENT, saver=saver)

    assert "begins anew" in told[0]
    assert "num_processes: 2 there, 1 here" in told[0]
    for name, value in read(results[0], "whole")[0].items():
        assert torch.equal(anew.state_dict()[name], value), name


def test_bf16_is_that_of_a_whole_copy_but_for_rounding(results: tuple[Path, Path]) -> None:
    (one, known), (other, found) = (read(folder, "half") for folder in results)

    assert known["facts"]["precision"] == found["facts"]["precision"] == "bf16"
    assert all(value.dtype == torch.float32 for name, value in other.items() if name != "seen")
    for tensor in one.keys() - {"seen"}:
        torch.testing.assert_close(other[tensor], one[tensor], rtol=0, atol=0.05, msg=tensor)
    exact, _ = read(results[1], "everything")
    assert not torch.equal(exact["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", list(shards.ADAPTERS))
def test_adapters_that_learn_make_the_same_child(results: tuple[Path, Path], name: str) -> None:
    one, other = (load_file(folder / f"{name}.0.safetensors") for folder in results)

    assert one.keys() == other.keys()
    for tensor, value in one.items():
        if value.is_floating_point():
            torch.testing.assert_close(other[tensor], value, rtol=0, atol=1e-6, msg=tensor)
        else:
            assert int((other[tensor].int() - value.int()).abs().max()) <= 1, tensor


@pytest.mark.parametrize("name", list(shards.CONFIGURATIONS))
def test_a_configuration_for_other_means_ends_in_the_weights_of_whole_copies(
    results: tuple[Path, Path], name: str
) -> None:
    whole_copies, _ = read(results[1], "as-whole")
    (first, found), (second, other) = (read(results[1], f"as-{name}", rank) for rank in (0, 1))

    assert found["intact"]
    assert other["intact"]
    for tensor in first.keys() - {"seen"}:
        assert torch.equal(first[tensor], second[tensor]), tensor
        torch.testing.assert_close(
            first[tensor], whole_copies[tensor], rtol=0, atol=1e-6, msg=tensor
        )


@pytest.mark.parametrize(
    ("name", "cut", "words", "facts"),
    [
        ("whole", False, "", {}),
        ("zero-0", False, "DeepSpeed ZeRO stage 0 .* whole copies .* engine is not used", {}),
        ("zero-2", False, "stage 2 is carried out with torch's fully_shard", "deepspeed zero 2"),
        ("zero-3", True, "stage 3 is carried out with torch's fully_shard", "deepspeed zero 3"),
        ("fsdp-1", False, "FSDP version 1 with SHARD_GRAD_OP", "fsdp 1 shard_grad_op"),
    ],
)
def test_a_configuration_decides_what_is_divided_and_when(
    results: tuple[Path, Path], name: str, cut: bool, words: str, facts: str | dict[str, str]
) -> None:
    (_, found), (_, other) = (read(results[1], f"as-{name}", rank) for rank in (0, 1))

    # weights between the forward and the backward pass
    assert set(found["cut"]) == {cut}
    assert len(found["remarks"]) == bool(words)
    assert re.search(words, "".join(found["remarks"]))
    assert other["remarks"] == []
    told = {key: value for key, value in found["facts"].items() if key.startswith("sharding")}
    assert told == ({"sharding": "fsdp2", "sharding_asked": facts} if facts else {})


def test_units_are_blocks_unless_the_configuration_says_otherwise() -> None:
    module = shards.tower()
    blocks = list(module.blocks)

    assert units(module, ("head",), Sharding()) == blocks
    assert units(module, ("head",), Sharding(classes=("Block",))) == blocks
    by_size = units(module, ("head",), Sharding(min_num_params=110))
    assert by_size[:3] == [block.inner for block in blocks]
    # two uses of one matrix would gather it twice
    assert module.head not in by_size
    with pytest.raises(TrainingError, match="fsdp_transformer_layer_cls_to_wrap"):
        units(module, ("head",), Sharding(classes=("Brick",)))


def test_what_is_whole_is_left_as_it_is() -> None:
    module = nn.Linear(3, 2)
    gradients = [torch.tensor([3.0]), torch.tensor([[4.0]])]

    assert not is_sharded(module)
    assert whole(module.weight) is local(module.weight) is module.weight
    assert cut_like(module.weight, module.bias) is module.weight
    assert float(total_norm(gradients)) == 5.0
