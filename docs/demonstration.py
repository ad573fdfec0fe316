"""Six lies about a model, and what finds each of them out.

    python docs/demonstration.py [FOLDER]

A small model gets a new head, then a LoRA update that is merged, then 8-bit weights. After that somebody lies about it
in six ways. Where that takes no key, the liar keeps the record consistent: digests alone notice nothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from reuselib import (
    Adapter,
    FineTune,
    FitPlan,
    LoRA,
    Merge,
    Model,
    Policy,
    Quantize,
    Runtime,
    Splits,
    TextClassification,
    Window,
    audit,
    derive,
    make_keys,
    prove,
    reproduce,
    sign,
    verify,
)
from reuselib.lineage.chain import ANCESTORS
from reuselib.lineage.tensors import Tensors
from reuselib.testing.forging import part, restate, retouch
from reuselib.testing.tiny import tiny_bert, tiny_rows

FIT = FitPlan(epochs=2, batch_size=8, learning_rate=5e-3)
HEAD = FineTune(train=("head",), fit=FIT)
STEPS = (HEAD, LoRA(r=2, fit=FIT), Merge(), Quantize(scheme="int8"))
ROWS = Splits.of(tiny_rows(96), tiny_rows(48, seed=1))


class Stage:
    """A folder with an honest chain in it, and a fresh copy of a model for each lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.base = tiny_bert(folder / "base")
        self.head = self.derive(HEAD)
        self.last = self.derive(STEPS)

    def derive(self, steps: Adapter | Sequence[Adapter], rows: Splits = ROWS) -> Model:
        """A model made as its record says, whatever is claimed later."""
        runtime = Runtime(store=self.store)
        return derive(self.base, steps, task=TextClassification(), data=rows, runtime=runtime)

    def copy(self, model: Model, name: str) -> Path:
        """For a liar to work on."""
        return Path(shutil.copytree(model.folder, self.folder / name))


def forge_a_weight(stage: Stage) -> str:
    """A weight that is said to be frozen is moved by a millionth."""
    child, name = stage.copy(stage.head, "forged"), "bert.encoder.layer.0.output.dense.weight"
    weight = Tensors(child)[name].clone()
    weight[0, 0] += 1e-6
    retouch(child, {name: weight})  # and the record is written anew
    assert verify(child).ok

    proof = prove(child, store=stage.store)

    [broken] = [each for each in proof.steps[0].findings if each.holds is False]
    assert broken.tensor == name
    return f"`prove`: {broken.claim}: {broken.tensor} {broken.detail}"


def claim_too_much(stage: Stage) -> str:
    """The model card claims an accuracy that was never measured."""
    child = stage.copy(stage.last, "boasting")
    card, measured = child / "README.md", stage.last.figures.after["accuracy"]
    claim = f"{{metric: accuracy, data: {ROWS.digest}, split: test, value: {measured + 0.05}}}"
    card.write_text(card.read_text().replace("---\n", f"---\nclaims: [{claim}]\n", 1))
    assert verify(child).ok

    found = audit(child, data=ROWS, store=stage.store)

    assert not found.ok
    [off] = [each for each in found.claims if each.holds is False]
    return f"`audit`: {off.metric} {off.value} on the {off.split} rows is {off.verdict}"


def swap_the_parent(stage: Stage) -> str:
    """A parent with another past is put in the place of the real one."""
    child = stage.copy(stage.head, "swapped")
    [recorded] = (child / ANCESTORS).iterdir()
    other = Model.load(tiny_bert(stage.folder / "other", seed=9), task=TextClassification())
    recorded.write_bytes(other.manifest.payload())

    report = verify(child)

    assert [each.code for each in report.problems] == ["PARENT_STATEMENT_MISMATCH"]
    return f"`verify`: {report.problems[0]}"


def flip_a_label(stage: Stage) -> str:
    """One label of the training rows is flipped, but the record names the rows as they were."""
    rows = tiny_rows(96)
    rows[40] = {
        **rows[40],
        "label": next(r["label"] for r in rows if r["label"] != rows[40]["label"]),
    }
    poisoned = stage.derive(HEAD, Splits.of(rows, tiny_rows(48, seed=1)))
    child, honest = stage.copy(poisoned, "poisoned"), stage.head.manifest.statement()
    restate(
        child,
        lambda told: told["predicate"].update(
            buildDefinition=honest["predicate"]["buildDefinition"]  # type: ignore[index,call-overload]
        ),
    )
    assert verify(child).ok
    assert prove(child, store=stage.store).ok  # a head is free to be anything

    found = reproduce(child, window=Window(steps=12), data=ROWS, store=stage.store)

    assert found.verdict == "differs"
    return f"`reproduce --steps 12`: the training parts from its trail at step {found.first_step}"


def tamper_with_the_record(stage: Stage) -> str:
    """A signed record is changed, and everything that needs no key is made to fit."""
    child, key = stage.copy(stage.last, "signed"), stage.folder / "key.pem"
    policy = Policy(trusted_keys=(str(make_keys(key)),), require=("signed",))
    sign(child, key)
    assert verify(child, policy=policy).ok
    restate(child, lambda told: part(told, "externalParameters").update(seed=1))

    report = verify(child, policy=policy)

    assert not report.ok
    return f"`verify --policy`: {report.problems[0]}"


def sign_with_another_key(stage: Stage) -> str:
    """Somebody else signs the tampered model, and it is all consistent again."""
    child, key, own = (stage.folder / name for name in ("signed", "forger.pem", "key.pem.pub"))
    make_keys(key)
    sign(child, key)
    assert verify(child).ok

    report = verify(child, policy=Policy(trusted_keys=(str(own),), require=("signed",)))

    assert [each.code for each in report.problems] == ["UNTRUSTED_SIGNER"]
    return f"`verify --policy`: {report.problems[0]}"


LIES: Sequence[Callable[[Stage], str]] = (
    forge_a_weight,
    claim_too_much,
    swap_the_parent,
    flip_a_label,
    tamper_with_the_record,
    sign_with_another_key,
)


def main(folder: Path) -> None:
    """Show the honest chain, then each lie and what it came to."""
    stage = Stage(folder)
    proof = prove(stage.last.folder, store=stage.store)
    print(f"an honest chain of {len(proof.steps)} steps: {proof.tier}\n")
    assert proof.tier == "proven"
    for lie in LIES:
        print(f"{(lie.__doc__ or '').strip()}\n  found by {lie(stage)}\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
