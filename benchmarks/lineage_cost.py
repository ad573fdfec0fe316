"""What the record of a run costs: digests, manifests, trails, as a share of the time that the run takes.

    python benchmarks/lineage_cost.py                              # the quickstart
    python benchmarks/lineage_cost.py recipe.yaml 'steps[0].lora.fit.epochs=1'

Measuring the models is apart: the figures ask for it, not the lineage. A function that counts does so once, whatever it
calls.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rig import keep, machine

from reuselib import (
    Data,
    FineTune,
    FitPlan,
    LoRA,
    Merge,
    ModelRef,
    Recipe,
    Runtime,
    TextClassification,
)
from reuselib.testing.tiny import tiny_bert
from reuselib.training.trail import Recorder

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
PARTS = {
    "pinning parents": (
        "reuselib.model.source:take_inventory",
        "reuselib.model.opening:take_inventory",
        "reuselib.derivation.origin:take_inventory",
    ),
    "verifying": ("reuselib.derivation.plan:verify", "reuselib.derivation.execution:verify"),
    "rows": ("reuselib.data.splits:row_hashes", "reuselib.data.splits:split_digest"),
    "record": ("reuselib.derivation.execution:write_record",),
}
"""Functions that a run calls for the sake of its lineage, where they are looked up."""
MEASURING = (
    "reuselib.derivation.measuring:Gauge.before",
    "reuselib.derivation.measuring:Gauge.after",
)


@dataclass
class Clock:
    """Adds up the time spent in functions; inside of one that counts already, nothing counts twice."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: bool = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its time counted."""

        def call(*positional: Any, **named: Any) -> Any:
            if self._inside:
                return function(*positional, **named)
            self._inside, began = True, time.perf_counter()
            try:
                return function(*positional, **named)
            finally:
                self._inside = False
                spent = time.perf_counter() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + spent

        return call


@dataclass
class Training:
    """One training and its trail."""

    recorder: Recorder
    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Steps and seconds, and what share of these the trail took."""
        recorder, seconds = self.recorder, self.ended - self.began
        return {
            "steps": recorder.entries[-1].step,
            "every": recorder.every,
            "entries": len(recorder.entries),
            "seconds": seconds,
            "trail_seconds": recorder.seconds,
            "share": recorder.seconds / seconds,
        }


@contextmanager
def watching(clock: Clock, measuring: Clock) -> Iterator[list[Training]]:
    """Count within; the recorders of all trainings are collected, because they know what they take."""
    recorders: list[Training] = []
    begin, finish = Recorder.__post_init__, Recorder.finish

    def begun(self: Recorder) -> None:
        recorders.append(Training(self))
        begin(self)

    def finished(self: Recorder) -> Any:
        found = finish(self)
        recorders[-1].ended = time.perf_counter()
        return found

    with ExitStack() as stack:
        stack.enter_context(patch.object(Recorder, "__post_init__", begun))
        stack.enter_context(patch.object(Recorder, "finish", finished))
        for part, places in (*PARTS.items(), ("measuring", MEASURING)):
            counter = measuring if part == "measuring" else clock
            for place in places:
                module, _, path = place.partition(":")
                owner = importlib.import_module(module)
                *outer, name = path.split(".")
                for each in outer:
                    owner = getattr(owner, each)
                function = counter.timed(part, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, function))
        yield recorders


def measure(recipe: Recipe) -> dict[str, Any]:
    """Run a recipe in an empty store; times in seconds, and the share of the lineage."""
    clock, measuring = Clock(), Clock()
    with tempfile.TemporaryDirectory() as folder, watching(clock, measuring) as trainings:
        began = time.perf_counter()
        recipe.run(Runtime(store=Path(folder)))
        total = time.perf_counter() - began
    parts = {**clock.seconds, "trail": sum(each.recorder.seconds for each in trainings)}
    return {
        "total": total,
        "measuring": sum(measuring.seconds.values()),
        "parts": parts,
        "share": sum(parts.values()) / total,
        "share_of_what_is_not_measuring": sum(parts.values())
        / (total - sum(measuring.seconds.values())),
        "trainings": [each.to_json() for each in trainings],
    }


def smoke(folder: Path) -> Recipe:
    """A run of seconds, to see that this script works."""
    fit = FitPlan(epochs=1, learning_rate=1e-3)
    return Recipe(
        base=ModelRef(str(tiny_bert(folder / "base"))),
        task=TextClassification(),
        data=Data(source="sample:senses", train="train[:256]", test="test[:64]"),
        steps=(LoRA(r=2, fit=fit), Merge(), FineTune(fit=fit)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recipe", nargs="?", type=Path, default=QUICKSTART)
    parser.add_argument("changes", nargs="*", help="such as 'steps[0].lora.fit.epochs=1'")
    parser.add_argument("--smoke", action="store_true", help="a tiny run instead")
    parser.add_argument("--output", type=Path, help="where to write the result")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        read = (
            smoke(Path(folder))
            if options.smoke
            else Recipe.read(options.recipe, overrides=options.changes)
        )
        found = measure(read)
    for part, seconds in sorted(found["parts"].items(), key=lambda each: -each[1]):
        print(f"{part:<16} {seconds:8.2f} s  {seconds / found['total']:6.2%}")
    for each in found["trainings"]:
        print(
            f"  {each['steps']} steps in {each['seconds']:.1f} s: {each['entries']} entries, {each['share']:.2%} of it"
        )
    print(f"{'measuring':<16} {found['measuring']:8.2f} s  (apart)")
    print(f"{'whole run':<16} {found['total']:8.2f} s")
    print(
        f"lineage: {found['share']:.2%} of the run, {found['share_of_what_is_not_measuring']:.2%} without measuring"
    )
    keep(
        {"machine": machine(), "changes": options.changes, **found}, "lineage-cost", options.output
    )


if __name__ == "__main__":
    main()
