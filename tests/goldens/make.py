"""Makes the golden folders: one small model for each relation and adapter, which every later reuselib must still read.

    python tests/goldens/make.py --add      those that are not kept yet; the others stay as they are
    python tests/goldens/make.py --check    only say whether the weights would be the same today
    python tests/goldens/make.py            all of them anew, with `digests.json` and `answers.json`

They are kept in the repository and never made anew because a test fails: a record that was good once stays good. Make
them anew only when the form of the record changes on purpose, which needs a new version of it. One that is added is
proven against parents that are kept, so add it where its parents' weights come out the same; `--check` says.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.calibration.plan import Calibration
from reuselib.data import Data, Splits
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.derivation.plan import plan
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.store import Store
from reuselib.measure.latency import Protocol
from reuselib.model import Model
from reuselib.task import Task
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_images, tiny_resnet, tiny_rows
from reuselib.training.lessons import Losses
from reuselib.training.plan import FitPlan

HERE = Path(__file__).parent
DIGESTS = "digests.json"
ANSWERS = "answers.json"
MODELS = "models"
QUICK = Protocol(seconds=0.01, rounds=3, warm_up=1, attempts=1)
"""Times are recorded, but nobody reads them here."""
FIT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)
FEW = Calibration(num_rows=32)
TUNE = FineTune(train=("head", "block[-1:]"), fit=FIT)
TEXTS: Mapping[str, tuple[Adapter, ...]] = {
    "finetune": (TUNE,),
    "lora": (LoRA(r=2, fit=FIT),),
    "fold": (LoRA(r=2, fit=FIT), Merge()),
    "cut": (TUNE, Prune(heads=0.5, ffn=0.5)),
    "blocks": (TUNE, Prune(blocks=(0,))),
    "hidden": (TUNE, Prune(hidden=0.5)),
    "distill": (
        TUNE,
        Prune(heads=0.5, ffn=0.5),
        Distill(losses=Losses(logits=0.5, task=0.5), fit=FIT),
    ),
    "sparse": (TUNE, Sparsify(sparsity=0.5)),
    "wanda": (TUNE, Sparsify(pattern="2:4", method="wanda", calibration=FEW)),
    "int8": (TUNE, Quantize(scheme="int8")),
    "int4": (TUNE, Quantize(scheme="int4-weight", group_size=16)),
    "gptq": (
        TUNE,
        Quantize(scheme="int4-weight", group_size=16, method="gptq", calibration=FEW),
    ),
    "awq": (TUNE, Quantize(scheme="int4-weight", group_size=16, method="awq", calibration=FEW)),
    "bf16": (TUNE, Quantize(scheme="bf16")),
}
"""By name of the folder: the steps from the base."""


def make(folder: Path) -> None:
    """Write every golden folder below `folder`."""
    models, store = folder / MODELS, folder / "store"
    shutil.rmtree(models, ignore_errors=True)
    base = tiny_bert(models / "base", num_layers=2)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    twin = tiny_bert(models / "twin", head=True, num_layers=2, seed=3)
    rows = _rows(folder / "rows")
    task = TextClassification()
    for name, steps in TEXTS.items():
        _derive(base, steps, task, rows, store, models / name)
    average = Merge(models=(ModelRef(str(twin)),), weights=(0.75, 0.25))
    labelled = TextClassification(labels=("bad", "good"))
    tuned = ModelRef(f"store:{Manifest.read(models / 'finetune').derivation_id}")
    _derive(tuned, (average,), labelled, None, store, models / "average")
    _channels(models, store)
    shutil.rmtree(store)
    _signed(models / "int8", models / "signed", folder)


def digests(models: Path) -> dict[str, dict[str, str]]:
    """What is pinned of each folder: identities, and the manifest's own digest where there is one."""
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(models.iterdir()):
        found[folder.name] = take_inventory(folder).digests.to_json()
        if (folder / MANIFEST).exists():
            found[folder.name]["manifest"] = Manifest.read(folder).sha256
    return found


def answers(models: Path, names: Iterable[str], store: Store) -> dict[str, list[list[float]]]:
    """What each model says about a few rows: logits, which another machine computes nearly alike."""
    for folder in models.iterdir():
        store.remember_root(take_inventory(folder).digests.dir_hash, folder)
    found: dict[str, list[list[float]]] = {}
    for name in sorted(names):
        model = Model.load(models / name, store=store.path)
        rows = tiny_images(4, size=16, seed=9) if name == "channels" else tiny_rows(4, seed=9)
        found[name] = [[round(value, 6) for value in row] for row in model.logits(rows).tolist()]
    return found


def _derive(
    base: Path | ModelRef,
    steps: tuple[Adapter, ...],
    task: Task,
    rows: Data | Splits | None,
    store: Path,
    output: Path,
) -> None:
    settled = plan(base, steps, task=task, data=rows, seed=0, store=store)
    execute(settled, Runtime(store=store, output=output, overwrite=True, protocol=QUICK))


def _channels(models: Path, store: Path) -> None:
    """Whole channels out of a network for images, whose parent is a base."""
    base = tiny_resnet(models / "images")
    rows = Splits.of(tiny_images(32, size=16), tiny_images(16, size=16, seed=1))
    steps = (Prune(channels=0.5),)
    _derive(base, steps, ImageClassification(), rows, store, models / "channels")


def _rows(folder: Path) -> Data:
    folder.mkdir(exist_ok=True)
    for split, count, seed in (("train", 48, 0), ("test", 16, 1)):
        lines = (json.dumps(row) + "\n" for row in tiny_rows(count, seed=seed))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return Data(source=str(folder))


def _signed(source: Path, target: Path, folder: Path) -> None:
    """A copy with a signature, whose public key is kept beside the models and whose private key is not kept."""
    from reuselib.signing.keys import make_keys
    from reuselib.signing.sign import sign

    shutil.copytree(source, target)
    with tempfile.TemporaryDirectory() as secret:
        private = Path(secret) / "signer"
        public = make_keys(private)
        sign(target, private)
        shutil.copy(public, folder / "signer.pub")


def _differences(kept: Mapping[str, Mapping[str, str]], made: Path) -> Iterator[str]:
    now = digests(made)
    for name in sorted(set(kept) | set(now)):
        for kind in ("dirHash", "tensorHash1"):
            before, after = (each.get(name, {}).get(kind, "none") for each in (kept, now))
            if before != after:
                yield f"{name}: {kind} was {before}, would be {after}"


def main(arguments: list[str]) -> int:
    """Make all, add what is new, or compare; the exit code is 1 if something differs."""
    if arguments not in ([], ["--add"], ["--check"]):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        make(made)
        if arguments == ["--check"]:
            kept = json.loads((HERE / DIGESTS).read_text(encoding="utf-8"))
            found = [*_differences(kept, made / MODELS)]
            sys.stdout.write("\n".join(found or ["the weights would be the same"]) + "\n")
            return int(bool(found))
        if arguments:
            _add(made / MODELS)
        else:  # nothing kept is lost before everything is there
            shutil.rmtree(HERE / MODELS, ignore_errors=True)
            shutil.copytree(made, HERE, dirs_exist_ok=True)
    _pin()
    return 0


def _add(models: Path) -> None:
    """Copy the folders that are not kept yet, and leave the others as they are."""
    for folder in sorted(models.iterdir()):
        if not (HERE / MODELS / folder.name).exists():
            shutil.copytree(folder, HERE / MODELS / folder.name)


def _pin() -> None:
    """Write anew what is pinned of the folders that are kept."""
    pinned = digests(HERE / MODELS)
    _keep(DIGESTS, pinned)
    children = [name for name, each in pinned.items() if "manifest" in each]
    with tempfile.TemporaryDirectory() as store:
        _keep(ANSWERS, answers(HERE / MODELS, children, Store(Path(store))))


def _keep(name: str, value: object) -> None:
    written = json.dumps(value, indent=1, sort_keys=True)
    (HERE / name).write_text(written + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
