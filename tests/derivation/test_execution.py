from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from chains import LORA, MERGE, TUNE, flip, modified
from reuselib.adapter import Adapted, Adapter, Finding
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.errors import StoreError, TrainingError
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify

TESTS = str(Path(__file__).parent.parent)


@dataclass(frozen=True, kw_only=True)
class Fail(Adapter):
    """Ends as told."""

    kind: ClassVar[str] = "fail"
    how: str = "RuntimeError"

    def adapt(self, module, run):
        import builtins

        raise getattr(builtins, self.how)("in the middle")

    def prove(self, parents, child, structure):
        yield Finding("failed", True)


@dataclass(frozen=True, kw_only=True)
class Empty(Adapter):
    """Takes the store away while it works."""

    kind: ClassVar[str] = "empty"

    def adapt(self, module, run):
        return Adapted(module)

    def prove(self, parents, child, structure):
        yield Finding("nothing", True)


def models(store: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in (store / "models").iterdir()}


class TestReuse:
    def test_what_is_in_the_store_is_not_touched(self, chain):
        before = modified(chain.store / "models")

        done = execute(chain.plan(), Runtime())

        assert [child.reused for child in done.children] == [True, True, True]
        assert [child.manifest for child in done.children] == [
            c.manifest for c in chain.execution.children
        ]
        assert modified(chain.store / "models") == before
        assert done.opened is None

    def test_only_what_follows_is_computed(self, chain, tmp_path):
        store = tmp_path / "store"
        first = execute(chain.plan((LORA,), store=store), Runtime())
        before, phases = modified(first.children[0].folder), []

        both = execute(
            chain.plan((LORA, MERGE), store=store),
            Runtime(report=lambda progress: phases.append(progress.phase)),
        )

        assert [child.reused for child in both.children] == [True, False]
        assert modified(first.children[0].folder) == before
        assert not any("lora" in phase for phase in phases)
        # and it is the same model as in one go
        assert both.children[1].manifest.digests == chain.merged.manifest.digests
        assert (
            both.children[1].manifest.parents[0].manifest_sha256
            == first.children[0].manifest.sha256
        )

    def test_what_follows_another_step_is_another_child(self, chain, tmp_path):
        store = tmp_path / "store"
        once = execute(chain.plan((LORA, MERGE), store=store), Runtime())
        other = execute(chain.plan((replace(LORA, r=3), MERGE), store=store), Runtime())

        assert [child.reused for child in other.children] == [False, False]
        assert not {c.folder for c in once.children} & {c.folder for c in other.children}

    def test_another_store_gives_the_same_weights_and_names(self, chain, tmp_path):
        again = execute(chain.plan(store=tmp_path / "store"), Runtime())

        for child, before in zip(again.children, chain.execution.children, strict=True):
            assert not child.reused
            assert child.manifest.digests == before.manifest.digests
            assert child.folder.name == before.folder.name

    def test_another_process_gives_the_same_bytes(self, chain, tmp_path):
        """Else what follows an adapter would have another id there: nothing may depend on the order of a set."""
        code = f"""
from pathlib import Path
from chains import LORA, run, text_rows
made = run(LORA, Path({str(chain.base)!r}), Path({str(tmp_path / "store")!r}), data=text_rows())
print(made.children[0].manifest.digests)
"""
        environment = {**os.environ, "PYTHONHASHSEED": "12", "PYTHONPATH": TESTS}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )

        assert done.stdout.strip() == str(chain.lora.manifest.digests)

    def test_a_child_that_a_killed_run_did_not_note_is_found_by_what_it_holds(
        self, chain, tmp_path
    ):
        """A later step looks for what it started from: a network that was healed, for what it was before."""
        store = tmp_path / "store"
        first = execute(replace(chain.plan(store=store), steps=(LORA,)), Runtime())
        digest = first.children[0].manifest.digests.dir_hash
        (store / "roots" / f"{digest}.json").unlink()

        execute(chain.plan(store=store), Runtime())

        assert Store(store).locate(digest) == first.children[0].folder

    @pytest.mark.parametrize("step", [1, 3])
    def test_a_killed_run_leaves_whole_children_and_is_done_again(self, chain, tmp_path, step):
        """SIGKILL, in the middle of the first training or of the second: nothing can be tidied up after it."""
        store = tmp_path / "store"
        code = f"""
import os, signal
from pathlib import Path
from chains import LORA, MERGE, TUNE, text_rows
from reuselib import Runtime, TextClassification, derive
def report(progress):
    if progress.phase.startswith("[{step}/3]"):
        os.kill(os.getpid(), signal.SIGKILL)
derive(Path({str(chain.base)!r}), [LORA, MERGE, TUNE], task=TextClassification(), data=text_rows(),
       runtime=Runtime(store=Path({str(store)!r}), report=report))
"""
        environment = {**os.environ, "PYTHONPATH": TESTS}
        killed = subprocess.run([sys.executable, "-c", code], check=False, env=environment)

        assert killed.returncode == -signal.SIGKILL
        left = sorted((store / "models").glob("*")) if (store / "models").exists() else []
        assert len(left) == step - 1
        assert all(verify(folder).ok for folder in left)
        again = execute(chain.plan(store=store), Runtime())
        assert [child.reused for child in again.children] == [True] * (step - 1) + [False] * (
            4 - step
        )
        assert [c.manifest.digests for c in again.children] == [
            c.manifest.digests for c in chain.execution.children
        ]

    def test_a_child_that_is_only_half_there_is_computed_anew(self, chain, tmp_path):
        store = chain.copied_store(tmp_path)
        folder = store / "models" / chain.tuned.folder.name
        (folder / "lineage/manifest.json").unlink()

        done = execute(chain.plan(store=store), Runtime())

        assert [child.reused for child in done.children] == [True, True, False]
        assert verify(folder).ok
        assert done.children[-1].manifest.digests == chain.tuned.manifest.digests

    def test_a_damaged_child_is_never_built_upon(self, chain, tmp_path):
        store = chain.copied_store(tmp_path)
        flip(store / "models" / chain.lora.folder.name / "adapter_model.safetensors")

        with pytest.raises(StoreError, match=r"adapter_model\.safetensors"):
            execute(
                chain.plan((LORA, MERGE, replace(TUNE, train=("all",))), store=store), Runtime()
            )


class TestModel:
    def test_from_the_store_and_from_memory_are_the_same(self, chain):
        rows = chain.rows.test
        fresh, stored = chain.execution.model(), execute(chain.plan(), Runtime()).model()

        assert stored.logits(rows).equal(fresh.logits(rows))
        assert (stored.manifest, stored.folder, stored.task, stored.ref) == (
            fresh.manifest, fresh.folder, fresh.task, fresh.ref
        )  # fmt: skip

    def test_an_adapter_comes_from_the_store_over_its_base(self, chain, tmp_path):
        rows = chain.rows.test

        stored = execute(chain.plan((LORA,)), Runtime()).model()

        made = execute(chain.plan((LORA,), store=tmp_path / "store"), Runtime()).model()
        assert stored.logits(rows).equal(made.logits(rows))


class TestFaults:
    @pytest.mark.parametrize("how", ["RuntimeError", "KeyboardInterrupt", "SystemExit"])
    def test_the_children_before_are_kept_and_nothing_of_the_step_is(self, chain, tmp_path, how):
        store = chain.copied_store(tmp_path)
        before = modified(store / "models")

        with pytest.raises(BaseException, match="in the middle"):
            execute(chain.plan((LORA, MERGE, Fail(how=how)), store=store), Runtime())

        assert modified(store / "models") == before
        assert list((store / "tmp").iterdir()) == []

    def test_ctrl_c_in_the_middle_of_training_leaves_whole_children_only(self, chain, tmp_path):
        """And the next run ends in the same weights."""
        store = tmp_path / "store"

        def interrupt(progress):
            if "finetune" in progress.phase and progress.done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            execute(chain.plan(store=store), Runtime(report=interrupt))

        assert set(models(store)) == {chain.lora.folder.name, chain.merged.folder.name}
        assert all(verify(folder).ok for folder in models(store).values())
        assert list((store / "tmp").iterdir()) == []
        done = execute(chain.plan(store=store), Runtime())
        assert [child.reused for child in done.children] == [True, True, False]
        assert done.children[-1].manifest.digests == chain.tuned.manifest.digests

    def test_a_store_that_cannot_be_written_is_found_out_before_any_work(self, chain, tmp_path):
        """Root may write everywhere, so a file stands where a folder should be.

        The base is gone too, which would be noticed first if the network were opened before.
        """
        shutil.copytree(chain.base, tmp_path / "base")
        settled = chain.plan(base=tmp_path / "base", store=tmp_path / "store")
        shutil.rmtree(tmp_path / "base")
        (tmp_path / "file").write_text("")

        with pytest.raises(StoreError, match="cannot write") as caught:
            execute(replace(settled, store=Store(tmp_path / "file")), Runtime())

        assert "--store" in caught.value.fix

    def test_a_store_that_somebody_empties_is_an_error_in_words(self, chain, tmp_path, monkeypatch):
        settled, store = chain.plan((Empty(),), store=tmp_path / "store"), tmp_path / "store"
        sync = "reuselib.lineage.rooms.sync"

        def emptied(path):
            shutil.rmtree(store / "models", ignore_errors=True)

        monkeypatch.setattr(sync, emptied)

        with pytest.raises(StoreError, match="no longer in the store"):
            execute(settled, Runtime())


def test_several_processes_without_a_meeting_place_are_told_so(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(TrainingError, match="MASTER_ADDR") as caught:
        execute(chain.plan(store=tmp_path / "store"), Runtime())

    assert "--processes" in caught.value.fix


class TestProgress:
    def test_every_report_names_the_step_its_place_and_its_kind(self, chain, tmp_path):
        seen = []

        execute(chain.plan(store=tmp_path / "store"), Runtime(report=seen.append))

        labels = {progress.phase.partition(":")[0] for progress in seen}
        assert labels == {"[1/3] lora", "[3/3] finetune"}


class TestOutput:
    def test_the_last_child_is_copied_whole(self, chain, tmp_path):
        output = tmp_path / "deep/output"

        done = execute(chain.plan(), Runtime(output=output))

        assert done.output == output
        report = verify(output)
        assert report.ok
        assert report.manifest == chain.tuned.manifest
        assert (output / "README.md").exists()

    def test_the_same_child_that_is_there_already_stays_untouched(self, chain, tmp_path):
        output = tmp_path / "output"
        execute(chain.plan(), Runtime(output=output))
        before = modified(output)

        execute(chain.plan(), Runtime(output=output))

        assert modified(output) == before

    @pytest.mark.parametrize("steps", [(LORA, MERGE), (LORA, MERGE, replace(TUNE, train=("all",)))])
    def test_another_child_is_never_replaced_unless_told(self, chain, tmp_path, steps):
        store, output = chain.copied_store(tmp_path), tmp_path / "output"
        execute(chain.plan(store=store), Runtime(output=output))
        before = modified(output)

        with pytest.raises(StoreError, match="already holds a model") as caught:
            execute(chain.plan(steps, store=store), Runtime(output=output))
        assert "--overwrite" in caught.value.fix
        assert modified(output) == before

        done = execute(chain.plan(steps, store=store), Runtime(output=output, overwrite=True))
        assert Manifest.read(output) == done.children[-1].manifest
        assert verify(output).ok

    def test_a_copy_that_was_changed_is_not_taken_for_the_child(self, chain, tmp_path):
        output = tmp_path / "output"
        execute(chain.plan(), Runtime(output=output))
        flip(output / "model.safetensors")

        with pytest.raises(StoreError, match="already holds a model"):
            execute(chain.plan(), Runtime(output=output))

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_somebody_elses_folder_is_refused_before_any_work(self, chain, tmp_path, overwrite):
        store, output, seen = tmp_path / "store", tmp_path / "home", []
        output.mkdir()
        (output / "thesis.tex").write_text("x")

        with pytest.raises(StoreError, match="never replaced"):
            execute(
                chain.plan(store=store),
                Runtime(output=output, overwrite=overwrite, report=seen.append),
            )

        assert seen == []
        assert not (store / "models").exists()
        assert (output / "thesis.tex").exists()

    def test_a_file_in_the_way_is_refused(self, chain, tmp_path):
        (tmp_path / "file").write_text("")

        with pytest.raises(StoreError, match="not a folder"):
            execute(chain.plan(), Runtime(output=tmp_path / "file", overwrite=True))
