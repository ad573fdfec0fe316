"""What `reproduce` found, for people: the verdict first, and always what was not checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.evidence.reproduction import Reproduction, WeightsCompared, WindowCompared

_STYLES = {"differs": "bold red", "cannot tell": "bold yellow", "cannot check": "bold yellow"}


def show_reproduction(found: Reproduction) -> None:
    """Print a reproduction."""
    from rich.console import Console

    console = Console(highlight=False)
    style = _STYLES.get(found.verdict, "bold green")
    part = "a window of the training in " if found.window is not None else ""
    line = f"{found.name}: {part}its last step ({found.adapter}) {_words(found)}"
    console.print(line, style=style, markup=False, soft_wrap=True)
    for line in _lines(found):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    notes = (
        ("differs here", found.environment),
        ("before it", tuple(f"{tier:<9} {name} ({what})" for name, what, tier in found.history)),
        ("not checked", found.unchecked),
    )
    for heading, lines in notes:
        for index, line in enumerate(lines):
            label = f"{heading}:" if index == 0 else ""
            console.print(f"  {label:<14}{line}", markup=False, soft_wrap=True, style="dim")


def _words(found: Reproduction) -> str:
    if any(problem.code == "DATA_MISMATCH" for problem in found.problems):
        return "was not made again, because these are not its rows"
    return {
        "bit-equal": "gave the same weights, bit for bit",
        "within tolerance": "gave the same weights within tolerance",
        "metric-equal": "gave other weights that are as good",
        "as recorded": "is as recorded",
        "differs": "does NOT come out as recorded",
        "cannot tell": "may or may not be as recorded",
        "cannot check": "cannot be checked",
    }[found.verdict]


def _lines(found: Reproduction) -> Iterator[str]:
    if found.why:
        yield found.why
    for problem in found.problems:
        yield str(problem)
    if found.weights is not None:
        yield from _weights(found.weights)
    for file in found.files:
        yield f"file {file} comes out differently"
    if found.first_step is not None:
        before = (
            f"; step {found.last_equal_step} is the same"
            if found.last_equal_step is not None
            else ""
        )
        yield f"the first step with another state is {found.first_step}{before}"
    for name, (recorded, now) in (found.metrics or {}).items():
        yield f"{name}: {recorded:.4f} of the model in the folder, {now:.4f} of the one made again"
    if found.window is not None:
        yield from _window(found.window)


def _weights(weights: WeightsCompared) -> Iterator[str]:
    yield f"{weights.num_equal} of {weights.num_tensors} tensors are the same bit for bit"
    if weights.first:
        yield f"the first that is not: {weights.first}"
    if weights.worst:
        gap = "another type or shape" if weights.max_abs is None else f"{weights.max_abs:.3g} apart"
        allowed = "" if weights.tolerance is None else f" (rounding may do {weights.tolerance:.3g})"
        yield f"the furthest away: {weights.worst}, {gap}{allowed}"


def _window(window: WindowCompared) -> Iterator[str]:
    few = max(1, window.num_rows // 100)
    yield (
        f"steps {window.start + 1} to {window.stop} of {window.num_steps} ({window.share_of_steps:.1%}), "
        f"{window.which}: {window.num_compared} digests compared"
    )
    num_steps = window.stop - window.start
    if num_steps > window.asked:
        yield (
            f"{num_steps} steps instead of {window.asked}: it goes on to step {window.stop}, {_stop(window)}"
        )
    yield (
        f"{window.num_seen} of {window.num_rows} training rows were seen ({window.share_of_rows:.1%}): if one "
        f"row at random was changed, that is noticed with a probability of {window.notices(1):.1%}, if {few} (1 %) "
        f"were, of {window.notices(few):.1%}"
    )


def _stop(window: WindowCompared) -> str:
    if window.stop < window.num_steps:
        return "the next entry of the trail"
    return "the end" if window.start == 0 else "the end, from the nearest state that was kept"
