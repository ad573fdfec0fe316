from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pytest

from chains import run, text_rows
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.quantize import Quantize
from reuselib.data import Data, Splits
from reuselib.errors import RecipeError
from reuselib.evidence.claims import (
    COUNTS,
    CheckedClaim,
    Claim,
    carded_claims,
    recorded_claims,
    unmeasured,
)
from reuselib.evidence.measurement import Measurement, check_claims
from reuselib.evidence.whereabouts import Whereabouts
from reuselib.lineage import canonical
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.testing.checking import write_rows
from reuselib.testing.forging import restate
from reuselib.testing.tiny import tiny_rows

GIVEN = object()


def measurement(folder, chain, data=GIVEN, **other) -> Measurement:
    places = other.pop("places", Whereabouts.of((), Store(chain.store)))
    given = chain.rows if data is GIVEN else data
    return Measurement(folder, Manifest.read(folder), places, given, **other)


@pytest.fixture
def child(chain, tmp_path):
    return shutil.copytree(chain.tuned.folder, tmp_path / "child")


@pytest.fixture
def truth(chain) -> float:
    return chain.tuned.manifest and chain.execution.model().evaluate(chain.rows.test)["accuracy"]


def state(folder, *claims) -> None:
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    card.write_text(
        text.replace("---\n", f"---\nclaims: {json.dumps(claims)}\n", 1), encoding="utf-8"
    )


def carded(folder, chain, **other):
    return [
        each for each in check_claims(measurement(folder, chain, **other)) if each.source == "card"
    ]


@contextmanager
def figures(folder):
    """What a folder's record states, to be changed; everything fits together afterwards."""
    path = folder / "lineage/metrics.json"
    told = json.loads(path.read_text())
    yield told
    path.write_bytes(canonical.dumps(told))
    restate(folder)


class TestRecord:
    @pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
    def test_what_was_recorded_holds(self, chain, step):
        """Also of a child that holds an adapter only, whose base the store knows."""
        found = check_claims(measurement(getattr(chain, step).folder, chain))

        assert {each.metric for each in found} >= {
            *("accuracy", "loss", "ece", "worst_slice"),
            *COUNTS,
            *("loss interval, low end", "accuracy interval, high end"),
        }
        assert [each.verdict for each in found] == ["holds"] * len(found)
        spans = [each for each in found if each.interval]
        assert {each.metric for each in spans} == {each.metric for each in found if each.is_metric}
        assert all(each.interval[0] <= each.measured <= each.interval[1] for each in spans)

    def test_what_was_recorded_falsely_is_off(self, chain, child):
        with figures(child) as told:
            told["after"]["accuracy"] += 0.05

        found = {each.metric: each for each in check_claims(measurement(child, chain))}

        assert found["accuracy"].verdict.startswith("off by 0.05")
        assert found["loss"].holds

    @pytest.mark.parametrize(
        ("group", "name", "value", "metric"),
        [
            ("quality", "worst_slice", 0.999, "worst_slice"),
            ("quality", "ece", 0.5, "ece"),
            ("cost", "num_parameters", 7, "num_parameters"),
            ("cost", "num_bytes", 7, "num_bytes"),
            ("cost", "flops", 7, "flops"),
        ],
    )
    def test_a_lie_beside_the_metric_is_off(self, chain, child, group, name, value, metric):
        with figures(child) as told:
            told[group][name] = value

        found = {each.metric: each for each in check_claims(measurement(child, chain))}

        assert [name for name, each in found.items() if each.holds is False] == [metric]

    def test_a_narrowed_interval_is_off(self, chain, child):
        with figures(child) as told:
            told["intervals"]["after"]["accuracy"] = [0.99, 1.0]

        found = {each.metric: each for each in check_claims(measurement(child, chain))}

        assert found["accuracy interval, low end"].verdict.startswith("off by ")
        assert found["accuracy interval, high end"].verdict.startswith("off by ")
        assert found["accuracy"].holds

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ({"rows": 0}, "of 0 rows"),
            ({"rows": True}, "of True rows"),
            ({"rows": "all"}, "of all rows"),
            ({"rows": 17}, "other rows than those that the manifest names"),
            ({"digest": "ab" * 32}, "other rows than those that the manifest names"),
        ],
    )
    def test_metrics_of_no_rows_or_others_are_void(self, chain, child, rows, reason):
        """Whoever states a number of nothing must not pass for one who states none."""
        with figures(child) as told:
            told["after"]["accuracy"] = 0.999
            told["test"] |= rows

        found = {each.metric: each for each in recorded_claims(child, Manifest.read(child))}

        assert found["accuracy"].is_void
        assert reason in found["accuracy"].reason

    @pytest.mark.parametrize(
        ("group", "name", "value"),
        [
            ("cost", "num_parameters", "few"),
            ("cost", "num_bytes", True),
            ("intervals", "after", []),
            ("intervals", "after", {"accuracy": [0, 0.5, 1]}),
            ("intervals", "after", {"accuracy": ["0", "1"]}),
        ],
    )
    def test_figures_that_are_no_numbers_are_void(self, child, group, name, value):
        with figures(child) as told:
            told[group][name] = value

        void = [
            e for e in recorded_claims(child, Manifest.read(child)) if isinstance(e, CheckedClaim)
        ]

        assert void
        assert all(each.is_void and "no finite number" in each.verdict for each in void)

    def test_what_is_not_measured_again_is_named(self, child):
        assert unmeasured(child) == (
            "those of the parent",
            "the comparison with the parent",
            "the comparison with the origin",
            "the simple reference",
            "what the adapter reported",
            "times and memory",
        )

    def test_a_step_without_rows_states_its_size(self, chain, tmp_path):
        child = run(Quantize(), chain.base, tmp_path / "store", data=None).children[0].folder
        assert {
            e.metric: e.verdict for e in check_claims(measurement(child, chain, data=None))
        } == {
            "num_parameters": "holds",
            "num_bytes": "holds",
        }

        with figures(child) as told:
            told["cost"]["num_parameters"] -= 1

        found = check_claims(measurement(child, chain, data=None))
        assert [each.verdict.split(":")[0] for each in found] == ["off by 1", "holds"]

    def test_an_adapter_without_its_base_cannot_be_checked(self, chain, tmp_path):
        places = Whereabouts.of((), Store(tmp_path / "empty"))

        found = check_claims(measurement(chain.lora.folder, chain, places=places))

        assert {each.holds for each in found} == {None}
        assert "its base is not at hand" in found[0].verdict

    def test_an_adapter_is_measured_over_a_folder_that_is_named(self, chain, tmp_path):
        places = Whereabouts.of([chain.base], Store(tmp_path / "empty"))

        found = check_claims(measurement(chain.lora.folder, chain, places=places))

        assert {each.holds for each in found} == {True}
        assert not (tmp_path / "empty").exists()


class TestCard:
    def test_a_true_claim_holds(self, chain, child, truth):
        state(
            child,
            {"metric": "accuracy", "data": chain.rows.digest, "split": "test", "value": truth},
        )

        [claim] = carded(child, chain)

        assert (claim.verdict, claim.measured) == ("holds", truth)

    def test_a_rounded_claim_holds_and_one_beyond_rounding_does_not(self, chain, child):
        """Against the loss, which has many places."""
        loss = chain.execution.model().evaluate(chain.rows.test)["loss"]
        state(child, *({"metric": "loss", "value": round(loss, 2) + off} for off in (0, 0.02)))

        assert [each.holds for each in carded(child, chain)] == [True, False]

    def test_claiming_five_points_more_is_caught(self, chain, child, truth):
        state(child, {"metric": "accuracy", "data": chain.rows.digest, "value": truth + 0.05})

        [claim] = carded(child, chain)

        assert claim.holds is False
        assert claim.verdict.startswith("off by 0.05: ")

    def test_a_stated_tolerance_decides(self, chain, child, truth):
        state(
            child,
            {"metric": "accuracy", "value": truth + 0.019, "tolerance": 0.02},
            {"metric": "accuracy", "value": truth + 0.019, "tolerance": 0.018},
            {"metric": "accuracy", "value": truth, "tolerance": 0},
        )

        assert [each.holds for each in carded(child, chain)] == [True, False, True]

    @pytest.mark.parametrize(("value", "tolerance"), [(0.999, 1), (0.95, 0.021), (20, 0.41)])
    def test_a_tolerance_in_which_anything_would_hold_makes_a_claim_void(
        self, chain, child, value, tolerance
    ):
        state(child, {"metric": "accuracy", "value": value, "tolerance": tolerance})

        [claim] = carded(child, chain)

        assert claim.is_void
        assert "is left to a claim" in claim.verdict

    def test_a_split_may_be_named_by_its_own_digest(self, chain, child):
        digest = chain.rows.facts["splits"]["train"]["digest"]
        value = chain.execution.model().evaluate(chain.rows.train)["accuracy"]
        state(child, {"metric": "accuracy", "data": digest, "split": "train", "value": value})

        [claim] = carded(child, chain)

        assert claim.verdict == "holds"

    @pytest.mark.parametrize(
        ("claim", "reason"),
        [
            ({"metric": "accuracy", "value": 1, "split": "validation"}, "no split 'validation'"),
            ({"metric": "accuracy", "value": 1, "data": "ab" * 32}, "about other rows"),
            ({"metric": "bleu", "value": 1}, "no metric of its task"),
            ({"metric": "Accuracy", "value": 1}, "no metric of its task"),
            ({"metric": "accuracy"}, "value: is missing"),
            ({"metric": "accuracy", "value": "high"}, "malformed"),
            ({"metric": "accuracy", "value": 1, "rows": "x"}, "malformed"),
            ({"metric": "accuracy", "value": 1, "data": "x"}, "64 lower-case hex digits"),
            ({"metric": "accuracy", "value": 1, "tolerance": -1}, "at least 0"),
            (["accuracy", 1], "malformed"),
        ],
    )
    def test_what_cannot_be_checked_says_why(self, chain, child, claim, reason):
        state(child, claim)

        [found] = carded(child, chain)

        assert found.holds is None
        assert found.verdict.startswith("cannot check, because ")
        assert reason in found.verdict
        # rows that are not at hand may be elsewhere; of the others nobody could ever say anything
        assert found.is_void == (reason not in ("no split 'validation'", "about other rows"))

    def test_claims_that_are_no_list_are_no_silence(self, chain, child):
        (child / "README.md").write_text("---\nclaims: {metric: accuracy}\n---\n")

        [claim] = carded(child, chain)

        assert "is not a list" in claim.verdict

    def test_a_card_that_is_no_yaml_is_no_silence(self, chain, child):
        (child / "README.md").write_text("---\nclaims: [\n---\n")

        [claim] = carded(child, chain)

        assert "README.md cannot be read" in claim.verdict

    def test_a_repeated_key_within_a_claim_is_refused(self, chain, child):
        (child / "README.md").write_text(
            "---\nclaims: [{metric: accuracy, value: 1, value: 0.5}]\n---\n"
        )

        [claim] = carded(child, chain)

        assert claim.holds is None
        assert "given twice" in claim.verdict

    def test_without_claims_there_are_none(self, chain):
        assert list(carded_claims(chain.tuned.folder)) == []


class TestRows:
    def test_rows_from_python_must_be_handed_over(self, chain, child):
        found = check_claims(measurement(child, chain, data=None))

        assert {each.holds for each in found} == {None}
        assert "came from Python" in found[0].verdict

    def test_other_rows_are_told_by_their_digest(self, chain, child):
        other = Splits.of(tiny_rows(32), tiny_rows(16, seed=2))

        found = check_claims(measurement(child, chain, data=other))

        assert "about other rows" in found[0].verdict

    def test_rows_are_found_by_the_manifest_and_by_a_path(self, chain, tmp_path, monkeypatch):
        data = write_rows(tmp_path / "rows", 24)
        made = run(FineTune(train=("head",)), chain.base, tmp_path / "store", data=data).children[0]
        elsewhere = shutil.copytree(tmp_path / "rows", tmp_path / "elsewhere/rows")
        shutil.rmtree(tmp_path / "rows")
        monkeypatch.chdir(tmp_path)

        lost = check_claims(measurement(made.folder, chain, data=None))
        assert "not at hand" in lost[0].verdict

        monkeypatch.chdir(tmp_path / "elsewhere")
        for given in (None, str(elsewhere), Data(source=str(elsewhere))):
            found = check_claims(measurement(made.folder, chain, data=given))
            assert {each.verdict for each in found} == {"holds"}, given

    @pytest.mark.parametrize(
        "source", ["/etc/passwd", "file:../secret.jsonl", "~/x.csv", "./a/b.jsonl"]
    )
    def test_a_manifest_cannot_have_files_of_this_machine_read(self, chain, child, source):
        restate(
            child,
            lambda s: s["predicate"]["buildDefinition"]["externalParameters"].update(
                data={"source": source}
            ),
        )

        found = check_claims(measurement(child, chain, data=None))

        assert "names rows by a path" in found[0].verdict

    def test_what_a_stranger_writes_of_rows_is_no_traceback(self, chain, child):
        restate(
            child,
            lambda s: s["predicate"]["buildDefinition"]["externalParameters"].update(
                data={"x": [1]}
            ),
        )

        found = check_claims(measurement(child, chain, data=None))

        assert {each.holds for each in found} == {None}


def test_a_model_that_must_not_be_opened_is_not(chain, child):
    (child / "model.safetensors").unlink()

    found = check_claims(measurement(child, chain, refusal="it holds pickles"))

    assert {each.verdict for each in found} == {"cannot check, because it holds pickles"}


def test_metrics_that_are_no_figures_are_no_traceback(chain, child):
    (child / "lineage/metrics.json").write_text('{"strange":1}')

    [claim] = recorded_claims(child, Manifest.read(child))

    assert "cannot be read" in claim.verdict


@pytest.mark.parametrize(
    ("value", "allowance"),
    [
        (0.95, 0.005),
        (0.9, 0.009),
        (1.0, 0.01),
        (12.5, 0.05),
        (1e-3, 1e-5),
        (1.25e-5, 5e-8),
        (0.123456, 1.23456e-5),
    ],
)
def test_the_last_stated_place_gives_the_tolerance(value, allowance):
    assert Claim(metric="x", value=value).allowance == pytest.approx(allowance)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_claim_is_a_number(value):
    with pytest.raises(RecipeError):
        Claim(metric="x", value=value)


def test_everything_is_plain_json(chain):
    json.dumps([each.to_json() for each in check_claims(measurement(chain.tuned.folder, chain))])
    assert text_rows().digest == chain.rows.digest
