from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chains import LORA, MERGE, TUNE, modified
from reuselib.derivation import judging
from reuselib.derivation.derive import Runtime, derive
from reuselib.derivation.execution import execute
from reuselib.errors import GateFailed, RecipeError
from reuselib.lineage.verify import verify
from reuselib.measure.gates import Gate
from reuselib.model.figures import read_figures

PASS, FAIL = Gate(figure="accuracy", min=0.0), Gate(figure="accuracy", min=1.01)


def failures(plan):
    [*_, last] = execute(replace(plan, gates=()), Runtime()).children
    return plan.store.verdicts.failures(last.manifest.derivation_id)


def test_a_child_that_passes_is_handed_over_with_verdicts(chain, tmp_path):
    settled = chain.plan((LORA, MERGE), gates=(PASS, Gate(figure="num_bytes", max_ratio=2)))

    done = execute(settled, Runtime(output=tmp_path / "out"))

    assert [(each["figure"], each["passed"]) for each in done.verdicts] == [
        ("accuracy", True),
        ("num_bytes", True),
    ]
    assert verify(tmp_path / "out").ok
    assert failures(settled) == ()


class TestFailure:
    def test_gate_figure_bound_and_value_are_named(self, chain, tmp_path):
        measured = read_figures(chain.merged.folder).after["accuracy"]

        with pytest.raises(GateFailed) as caught:
            execute(chain.plan((LORA, MERGE), gates=(PASS, FAIL)), Runtime())

        error = caught.value
        assert error.exit_code == 4
        assert error.what == f"gate failed: accuracy is {measured:.6g}; `min` wants at least 1.01"
        assert [each["passed"] for each in error.verdicts] == [True, False]
        assert "kept in" in error.fix

    def test_the_child_stays_in_the_store_marked_and_is_not_handed_over(self, chain, tmp_path):
        store, output = tmp_path / "store", tmp_path / "out"
        settled = chain.plan((LORA, MERGE), store=store, gates=(FAIL,))

        with pytest.raises(GateFailed):
            execute(settled, Runtime(output=output))

        assert not output.exists()
        [told] = failures(settled)
        assert "wants at least 1.01" in told
        assert all(verify(each).ok for each in (store / "models").iterdir())

    def test_a_model_that_is_there_already_is_not_replaced(self, chain, tmp_path):
        output = tmp_path / "out"
        execute(chain.plan((LORA,)), Runtime(output=output))
        before = modified(output)

        with pytest.raises(GateFailed):
            execute(
                chain.plan((LORA, MERGE), gates=(FAIL,)), Runtime(output=output, overwrite=True)
            )

        assert modified(output) == before

    def test_the_mark_is_gone_once_the_child_passes(self, chain, tmp_path):
        store = chain.copied_store(tmp_path)
        with pytest.raises(GateFailed):
            execute(chain.plan((LORA, MERGE), store=store, gates=(FAIL,)), Runtime())
        assert failures(chain.plan((LORA, MERGE), store=store))

        execute(chain.plan((LORA, MERGE), store=store, gates=(PASS,)), Runtime())

        assert not failures(chain.plan((LORA, MERGE), store=store))

    def test_derive_raises_it_too(self, chain):
        with pytest.raises(GateFailed):
            derive(
                chain.base,
                [LORA, MERGE],
                task=chain.execution.plan.task,
                data=chain.rows,
                gates=[FAIL],
                runtime=Runtime(store=chain.store),
            )


class TestWhatIsJudged:
    def test_only_the_last_child(self, chain):
        """The adapter alone has fewer bytes than the merged model has."""
        few = Gate(figure="num_bytes", max=read_figures(chain.lora.folder).cost["num_bytes"])

        execute(chain.plan((LORA,), gates=(few,)), Runtime())
        with pytest.raises(GateFailed, match="num_bytes"):
            execute(chain.plan((LORA, MERGE), gates=(few,)), Runtime())

    def test_gates_are_no_part_of_the_identity_nor_of_the_record(self, chain):
        with_gates = chain.plan(gates=(PASS,))

        done = execute(with_gates, Runtime())

        assert all(child.reused for child in done.children)
        assert "gates" not in (chain.tuned.folder / "lineage/manifest.json").read_text()

    def test_an_unknown_figure_is_found_before_anything_is_opened(self, chain, tmp_path):
        gate = Gate(figure="acuracy", min=1)

        with pytest.raises(RecipeError, match="did you mean `accuracy`") as caught:
            chain.plan(base=tmp_path / "nowhere", gates=(gate,))

        assert caught.value.problems[0].key == "gates[0].acuracy"

    def test_a_child_of_a_run_that_began_elsewhere_is_held_against_this_base(self, chain):
        figures = read_figures(chain.tuned.folder)
        gate = Gate(figure="loss", max_drop=100)

        done = execute(chain.plan((TUNE,), base=chain.merged.folder, gates=(gate,)), Runtime())

        assert done.children[0].reused
        (verdict,) = done.verdicts
        change = figures.after["loss"] - figures.before["loss"]
        assert verdict["measured"] == pytest.approx(change, abs=1e-6)
        assert verdict["measured"] != figures.after["loss"] - figures.flat_origin()["loss"]

    def test_a_repeated_run_needs_no_torch(self, chain):
        code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from pathlib import Path
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.measure.gates import Gate
from reuselib.derivation.judging import pass_gates
from reuselib.tasks.text_classification import TextClassification
class Plan:
    gates, store = (Gate(figure="accuracy", min=0.0), Gate(figure="flops", max_ratio=2)), Store(Path({str(chain.store)!r}))
    task = TextClassification(labels=("bad", "good"))
    class base:
        class manifest:
            class digests:
                dir_hash = {chain.execution.plan.base.manifest.digests.dir_hash!r}
folder = Path({str(chain.merged.folder)!r})
print(len(pass_gates(Plan, folder, Manifest.read(folder), reused=True)), "torch" in sys.modules)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert done.stdout.split() == ["2", "False"]


class TestUnstable:
    """Times of a busy machine."""

    @pytest.fixture
    def shaken(self, monkeypatch):
        def shake(folder):
            figures = read_figures(folder)
            cost = {
                n: "unstable" if n.startswith("latency") else v for n, v in figures.cost.items()
            }
            origin = {
                **figures.origin,
                "speedup": {"speedup": "unstable", "speedup_batch32": "unstable"},
            }
            return replace(figures, cost=cost, origin=origin)

        monkeypatch.setattr(judging, "read_figures", shake)

    def test_they_cannot_pass_in_the_run_that_took_them(self, chain, shaken):
        gate = Gate(figure="latency_p50", max=1e9)
        last = chain.merged

        with pytest.raises(GateFailed, match="unstable") as caught:
            judging.pass_gates(
                chain.plan((LORA, MERGE), gates=(gate,)), last.folder, last.manifest, reused=False
            )

        assert "run the same command again" in caught.value.fix

    @pytest.mark.parametrize(
        "gate", [Gate(figure="latency_p50", max=5.0), Gate(figure="latency_p50", max_ratio=0.5)]
    )
    def test_they_are_taken_anew_in_the_next_one(self, chain, shaken, monkeypatch, gate):
        taken = ({"speedup": 2.5}, {"latency_p50": 4.0}, {"latency_p50": 10.0})
        monkeypatch.setattr("reuselib.derivation.measuring.time_again", lambda *_: taken)

        done = execute(chain.plan((LORA, MERGE), gates=(gate,)), Runtime())

        assert done.verdicts[0]["measured"] in (4.0, 0.4)

    def test_times_taken_anew_are_real(self, chain):
        from reuselib.derivation.measuring import time_again

        last = chain.merged

        speedup, child, origin = time_again(
            chain.plan((LORA, MERGE)), last.folder, last.manifest, None
        )

        assert set(speedup) == {"speedup", "speedup_batch32"}
        assert set(child) == set(origin) == {
            "latency_p50", "latency_p95", "latency_p50_batch32", "latency_p95_batch32",
        }  # fmt: skip


def test_what_was_never_measured_says_why(chain, monkeypatch):
    def without(folder):
        return replace(read_figures(folder), origin={"missing": "the origin is not at hand"})

    monkeypatch.setattr(judging, "read_figures", without)

    with pytest.raises(GateFailed, match="was not measured") as caught:
        execute(chain.plan((LORA, MERGE), gates=(Gate(figure="accuracy", max_drop=1),)), Runtime())

    assert caught.value.fix.startswith("the origin is not at hand")
