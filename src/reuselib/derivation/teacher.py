"""A model that teaches: known by its digests, opened only if what it says is not on the disk already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep

if TYPE_CHECKING:
    from torch import nn

    from reuselib.model.opening import Opened
    from reuselib.task import Processor, Rows, Task


@dataclass(frozen=True)
class Teacher:
    """A complete model of the same task."""

    identity: tuple[str, ...]
    """Its digests, see `derivation.plan.identity`; empty if what it says is not to be kept."""
    open: Callable[[], Opened]
    name: str = "the model before it was compressed"
    """For messages."""

    def module(self) -> nn.Module:
        """The network, in evaluation mode.

        Raises:
            IncompatibleStep: it lacks weights, such as those of a head for this task.
        """
        return complete(self.open()).module


def complete(opened: Opened) -> Opened:
    """The same, if no tensor had to be newly initialised."""
    if opened.fresh:
        raise IncompatibleStep(
            f"the model has no weights for {min(opened.fresh)}: it was not made for this task",
            expected="a model that is complete for the task",
            fix="fine-tune it for the task first and name the child",
        )
    return opened


def refuse_other_form(name: str, form: str, own: str) -> None:
    """What another model's weights are taken from must have plain ones, and zeros where the chain has them.

    Raises:
        IncompatibleStep: it holds an adapter or integer weights, or only one of the two models is sparse.
    """
    if {form, own} == {"dense", "sparse"}:
        raise IncompatibleStep(
            f"{name} is {form}, but the model before this step is {own}: whose zeros should be kept?",
            expected=f"a {own} model",
            fix="sparsify after this step, or begin with the other model",
        )
    if form not in ("dense", "sparse"):
        raise IncompatibleStep(
            f"{name} is of form '{form}', so it has no plain weights to start from",
            expected="a dense or a sparse model",
            fix="merge it first"
            if "adapter" in form
            else "name the model that it was quantized from",
        )


def refuse_other_processor(
    name: str, task: Task, rows: Rows, processors: tuple[Processor, Processor]
) -> None:
    """Batches are encoded with the processor of the model before the step, whichever network is to take them.

    Args:
        name: of the other model.
        task: of both.
        rows: a few, to be encoded with both.
        processors: ours and the other model's.

    Raises:
        IncompatibleStep: they differ.
    """
    from reuselib.training.notebook import encoding_digest

    vocabularies = [each.get_vocab() for each in processors if hasattr(each, "get_vocab")]
    alike = not vocabularies or vocabularies[0] == vocabularies[-1]
    if alike and rows:
        digests = {encoding_digest(task, each, task.encode(rows, each)) for each in processors}
        alike = len(digests) == 1
    if not alike:
        raise IncompatibleStep(
            f"{name} takes rows in otherwise than the model before this step: another tokenizer or image processor",
            expected="a model with the same one",
            fix="name a model of the same family",
        )
