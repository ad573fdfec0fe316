"""A student while it learns: a network, what it learns besides, and what it loses against its teachers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reuselib.errors import IncompatibleStep
from reuselib.training import objectives
from reuselib.training.sights import (
    RELATED,
    Sight,
    hidden_sights,
    positions,
    relation_sights,
    watched,
)
from reuselib.training.teaching import PREFIX

if TYPE_CHECKING:
    from reuselib.task import Batch, Task
    from reuselib.training.lessons import Losses

MAX_RELATION_HEADS = 16
"""Pieces into which queries, keys and values are cut to be related. More are better (Wang et al., 2021), but each
takes a square of the row's length."""

SAME = 1e-6
"""Difference of outputs, absolute and relative, that rounding may make between batches of other rows."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a student is taught."""

    task: Task
    losses: Losses
    temperature: float
    pairs: Sequence[tuple[int, int]]
    """Blocks of the student, each with the block of the teacher that it learns from."""


class Pupil(nn.Module):
    """The student's network with its projections, so that one module holds all that learns.

    Called with a batch to which teachers' answers are attached, it gives the loss, summed over targets: one call from
    outside, because what shares gradients among processes watches that. Called otherwise, it is the network.
    """

    def __init__(
        self, network: nn.Module, course: Course, example: Batch, widths: Mapping[str, int]
    ) -> None:
        """Wrap a network.

        Args:
            network: the student; it alone is kept afterwards.
            course: how it is taught.
            example: inputs for the network, to see how wide its hidden states are.
            widths: of the teachers' values, see `Taught`.
        """
        super().__init__()
        self.network = network
        self.course = course
        self.sights = _sights(network, course)
        self.seen: dict[str, Tensor] = {}
        self.has_begun = False
        self.projections = nn.ModuleDict()
        if course.losses.hidden and widths:
            self._project(example, widths)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The loss of a batch with answers, or what the network gives."""
        if len(inputs) == 1 and isinstance(inputs[0], dict):
            return self._loss(inputs[0])
        return self.network(*inputs, **named)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Needed around training: the network's inner values can be seen."""
        with watched(self.network, self.sights) as self.seen:
            yield

    def _loss(self, batch: Batch) -> Tensor:
        own = {name: value for name, value in batch.items() if not name.startswith(PREFIX)}
        teachers = _by_teacher(batch)
        task, losses = self.course.task, self.course.losses
        if not self.has_begun and not losses.task:
            self._refuse_known(own, teachers)
        self.has_begun = True
        logits = task.forward(self.network, own)
        # Whatever the weights, every parameter has a gradient: processes wait for each.
        total = 0.0 * logits.float().sum()
        if losses.task:
            total = total + losses.task * task.loss(logits, own)
        for number, told in enumerate(teachers):
            total = total + self._distance(number, told, logits, own) / len(teachers)
        return total

    @torch.no_grad()
    def _refuse_known(self, batch: Batch, teachers: Sequence[dict[str, Tensor]]) -> None:
        """A student that is its teacher would only follow errors of rounding, and not be the same model afterwards."""
        modes = [(part, part.training) for part in self.network.modules()]
        logits = self.course.task.forward(self.network.eval(), batch)
        for part, mode in modes:
            part.training = mode
        outputs = self.course.task.predictions(logits, batch)
        for told in teachers:
            theirs = told.get("logits")
            own = None if theirs is None else outputs[..., : theirs.shape[-1]].float()
            if own is None or own.shape != theirs.shape or not own.allclose(theirs, SAME, SAME):
                return
        raise IncompatibleStep(
            "the student says already what its teacher says, so there is nothing to learn",
            expected="a student that lost something, or another teacher",
            fix="put `prune` or `sparsify` before it, choose `blocks`, or give `losses.task` a weight above 0",
        )

    def _distance(
        self, number: int, told: dict[str, Tensor], logits: Tensor, batch: Batch
    ) -> Tensor:
        """To one teacher."""
        losses, mask = self.course.losses, batch.get("attention_mask")
        total = logits.new_zeros((), dtype=torch.float32)
        if losses.logits:
            outputs = self.course.task.predictions(logits, batch)
            total = total + losses.logits * self._logits_loss(outputs, told)
        for pair in self.course.pairs:
            if losses.hidden:
                total = total + losses.hidden * self._hidden_loss(number, told, pair, mask)
            if losses.relations:
                total = total + losses.relations * self._relations_loss(told, pair, mask)
        return total

    def _logits_loss(self, outputs: Tensor, told: dict[str, Tensor]) -> Tensor:
        meaning, temperature = self.course.task.meaning, self.course.temperature
        if "top" in told:
            return objectives.top_loss(outputs, told["top"], told["categories"], temperature)
        logits = told["logits"]
        if outputs.shape[-1] < logits.shape[-1]:
            raise IncompatibleStep(
                f"the student has {outputs.shape[-1]} outputs, but the teacher's tokenizer has {logits.shape[-1]} "
                "tokens",
                expected="an output for each token",
                fix="name a teacher of the student's vocabulary",
            )
        # Outputs beyond the tokenizer's tokens only fill up to a round number.
        outputs = outputs[..., : logits.shape[-1]]
        if meaning == "categories":
            return objectives.categories_loss(outputs, logits, temperature)
        if meaning == "decisions":
            return objectives.decisions_loss(outputs, logits, temperature)
        return objectives.numbers_loss(outputs, logits)

    def _hidden_loss(
        self, number: int, told: dict[str, Tensor], pair: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        own, counts = positions(self.seen[f"hidden.{pair[0]}"], mask)
        key, theirs = _projection(number, pair), told[f"hidden.{pair[1]}"]
        if key in self.projections:
            own = self.projections[key](own)
        if own.shape != theirs.shape:
            raise IncompatibleStep(
                f"block {pair[0]} of the student gives {len(own)} vectors for these rows, and block {pair[1]} of the "
                f"teacher {len(theirs)}",
                expected="blocks that see the same positions",
                fix="choose other pairs in layer_map, or leave out `hidden`",
            )
        means = objectives.row_means(objectives.position_losses(own, theirs), counts)
        return (means * told["targets"]).sum() / len(self.course.pairs)

    def _relations_loss(
        self, told: dict[str, Tensor], pair: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        total = torch.zeros((), device=told["targets"].device)
        for what in RELATED:
            own, flat = self.seen[f"{what}.{pair[0]}"], told[f"{what}.{pair[1]}"]
            counted = torch.ones(own.shape[:2], device=own.device) if mask is None else mask
            theirs = flat.new_zeros((*own.shape[:2], flat.shape[-1]))
            theirs[counted.bool()] = flat
            heads = objectives.num_relation_heads(
                (own.shape[-1], flat.shape[-1]), MAX_RELATION_HEADS
            )
            means = objectives.relation_losses(own, theirs, counted, heads)
            total = total + (means * told["targets"]).sum()
        return total / (len(RELATED) * len(self.course.pairs))

    def _project(self, example: Batch, widths: Mapping[str, int]) -> None:
        """Where widths differ; from torch's generator."""
        with self.watching(), torch.inference_mode():
            self.course.task.forward(self.network.eval(), example)
            own = {key: positions(value, None)[0].shape[-1] for key, value in self.seen.items()}
        for name, width in widths.items():
            number, _, key = name.removeprefix(PREFIX).partition(".")
            for pair in self.course.pairs:
                mine = own[f"hidden.{pair[0]}"]
                if key == f"hidden.{pair[1]}" and mine != width:
                    self.projections[_projection(int(number), pair)] = nn.Linear(mine, width)


def _by_teacher(batch: Batch) -> list[dict[str, Tensor]]:
    """What each teacher says, by key."""
    told: dict[int, dict[str, Tensor]] = {}
    for name, value in batch.items():
        if name.startswith(PREFIX):
            number, _, key = name.removeprefix(PREFIX).partition(".")
            told.setdefault(int(number), {})[key] = value
    return [told[number] for number in sorted(told)]


def _sights(network: nn.Module, course: Course) -> list[Sight]:
    own = tuple(dict.fromkeys(pair[0] for pair in course.pairs))
    hidden = course.losses.hidden and hidden_sights(network, course.task.head(network), own)
    return [*(hidden or ()), *(relation_sights(network, own) if course.losses.relations else ())]


def _projection(number: int, pair: tuple[int, int]) -> str:
    """Name of the projection for a pair of blocks and a teacher."""
    return f"{number}_{pair[0]}_{pair[1]}"
