"""Keeping a store small, and seeing what a run would find in it, as typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chains import Chain, text_chain
from reuselib.cli.store import num_bytes
from reuselib.testing.tiny import tiny_bert, tiny_rows

LORA = "{lora: {r: 2, fit: {epochs: 1, batch_size: 8, learning_rate: 1e-3}}}"
NEVER = ("torch", "transformers", "accelerate", "peft")


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Chain:
    return text_chain(tmp_path_factory.mktemp("chain"))


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5TiB", 3 * 2**39), ("7", 7), ("2k", 2000), ("1 GiB", 2**30)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text, expected):
    assert num_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "20 G B", "1e9", "1iB", "9" * 400])
def test_what_is_no_size_is_refused(typed, tmp_path, text):
    code, _, error = typed("gc", f"--limit={text}", "--store", str(tmp_path / "none"))

    assert code == 2
    assert "is no size" in error


def test_gc_packs_removes_and_says_why_the_rest_stays(typed, chain, tmp_path):
    store = str(chain.copied_store(tmp_path))
    last = chain.tuned.manifest.derivation_id

    code, told, _ = typed(
        "gc", "--store", store, "--limit", "1MB", "--idle", "0", "--dry-run", "--json"
    )
    assert code == 0
    dry = json.loads(told)
    code, screen, _ = typed("gc", "--store", store, "--idle", "0")
    assert code == 0
    assert screen.count("packed") == 2

    code, screen, _ = typed("gc", "--store", store, "--idle", "0", "--limit", "1kB", "--keep", last)
    assert code == 3
    assert "above the limit" in screen
    assert "you said to keep it" in screen

    code, told, _ = typed("gc", "--store", store, "--idle", "0", "--limit", "0", "--json")
    assert code == 0
    done = json.loads(told)
    assert done["fits"]
    assert done["bytes"] == 0
    assert {each["action"] for each in done["items"]} == {"removed"}
    assert dry["dry_run"]
    assert dry["bytes"] <= 10**6 < dry["bytes_before"] or dry["bytes_before"] <= 10**6


@pytest.mark.parametrize("verb", ["verify", "trace", "prove", "diff"])
@pytest.mark.parametrize("by_path", [True, False])
def test_a_packed_child_is_found_by_the_path_that_its_run_printed_and_by_id(
    typed, chain, tmp_path, monkeypatch, verb, by_path
):
    store = chain.copied_store(tmp_path)
    monkeypatch.setenv("REUSELIB_STORE", str(store))
    child = store / "models" / chain.tuned.manifest.derivation_id
    typed("gc", "--store", str(store), "--idle", "0")
    assert not child.exists()
    name = str(child) if by_path else f"store:{child.name[:12]}"

    code, _, error = typed(verb, name, *([str(chain.merged.folder)] if verb == "diff" else []))

    assert (code, error) == (0, "")
    assert child.is_dir()


def test_a_name_that_no_child_has_is_told(typed, tmp_path):
    code, _, error = typed("prove", f"store:{'ab' * 4}", "--store", str(tmp_path / "none"))

    assert code == 3
    assert "is not in the store at" in error
    assert str(tmp_path / "none") in error


def test_an_unknown_child_to_keep_is_told(typed, chain, tmp_path):
    code, _, error = typed("gc", "--store", str(chain.store), "--keep", "deadbeef")

    assert code == 3
    assert "has no child deadbeef" in error


class TestDryRun:
    @pytest.fixture
    def recipe(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.chdir(tmp_path)
        tiny_bert(tmp_path / "bert")
        rows = "".join(f"{json.dumps(row)}\n" for row in tiny_rows(24))
        (tmp_path / "rows").mkdir()
        for split in ("train", "test"):
            (tmp_path / "rows" / f"{split}.jsonl").write_text(rows)
        (tmp_path / "r.yaml").write_text(
            "base: {source: ./bert}\ntask: text_classification\ndata: {source: ./rows}\n"
            f"steps:\n  - {LORA}\n  - merge\n  - quantize: {{scheme: int8}}\n"
        )
        return tmp_path / "r.yaml"

    def test_it_says_what_is_reused_and_writes_nothing(self, typed, recipe, tmp_path):
        dry = ("run", str(recipe), "--store", str(tmp_path / "store"), "--dry-run")
        code, told, _ = typed(*dry, "--json")
        assert code == 0
        first = json.loads(told)["steps"]
        assert [each["reused"] for each in first] == [False, False, False]
        assert [bool(each["id"]) for each in first] == [True, False, False]
        assert not (tmp_path / "store").exists()

        text = recipe.read_text()
        recipe.write_text(text.replace("  - quantize: {scheme: int8}\n", ""))
        code, told, _ = typed("run", str(recipe), "--store", str(tmp_path / "store"), "--json")
        assert code == 0
        made = json.loads(told)["steps"]
        recipe.write_text(text)
        before = files(tmp_path / "store")

        code, told, _ = typed(*dry, "--json")
        then = json.loads(told)["steps"]
        code, screen, _ = typed(*dry)

        assert first[0]["id"] == made[0]["id"]
        assert [each["id"] for each in then[:2]] == [each["id"] for each in made]
        assert [each["folder"] for each in then[:2]] == [each["folder"] for each in made]
        assert [each["reused"] for each in then] == [True, True, False]
        assert "a run would compute 1 of 3 steps, from quantize on" in screen
        assert files(tmp_path / "store") == before

    def test_it_loads_no_network_library(self, recipe, tmp_path):
        code = (
            "import sys; from reuselib.cli import main; "
            f"code = main(['run', {str(recipe)!r}, '--store', {str(tmp_path / 'store')!r}, '--dry-run']); "
            f"sys.exit(str([code, *(each for each in {NEVER!r} if each in sys.modules)]))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

        assert done.stderr.strip().splitlines()[-1] == "[0]"
