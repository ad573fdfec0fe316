"""Structured pruning: parts of a transformer or channels of a convolutional network go, and the network is smaller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Weights, as_json
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep
from reuselib.pruning.proof import ENDINGS, Record, as_asked, cut_out

if TYPE_CHECKING:
    from torch import nn

    from reuselib.network.axes import Keep
    from reuselib.network.families import Block, Family
    from reuselib.pruning.budget import Pool
    from reuselib.pruning.importance import Scores

SHARES = ("heads", "ffn", "hidden", "channels")
"""Fields that name a share to leave out."""
MANY_PLACES = ("heads", "ffn", "channels")
"""Of these, those that occur in every block."""
WIDTHS = ("ffn", "hidden", "channels")
"""And those whose number can be rounded."""
NEED_ROWS = ("taylor", "activation")


@dataclass(frozen=True, kw_only=True)
class Prune(Adapter):
    """Leave out what matters least. What stays keeps its values.

    Of a transformer: heads, FFN units, hidden channels or whole blocks; of a convolutional network: channels. Nothing
    is trained: let `finetune` or `distill` follow. By default every block loses the same share, so that the
    child opens in plain transformers wherever a configuration can say its sizes.
    """

    kind: ClassVar[str] = "prune"
    relation: ClassVar[str] = "prune"

    heads: float | None = None
    """Share of the attention heads to leave out, such as 0.5. Key/value heads that serve several go with them, or
    all serve equally fewer."""
    ffn: float | None = None
    """Share of the units of each feed-forward part to leave out."""
    hidden: float | None = None
    """Share of the channels of the hidden state to leave out, in the whole network."""
    channels: float | None = None
    """Share of the channels of each layer of a convolutional network to leave out, through torch-pruning. Not together
    with the options for transformers: `heads`, `ffn`, `hidden` and `blocks`."""
    blocks: tuple[int, ...] = ()
    """Blocks to leave out, counted as in `block[i]`: 0 is the first, -1 the last."""
    scope: Literal["uniform", "global", "sensitivity"] = "uniform"
    """uniform: every block loses the same share. global: heads, or units, or channels of all blocks are ranked
    together. sensitivity: of heads and units, blocks lose least whose loss moves the outputs most, as measured on
    `calibration` rows. But for uniform, the child opens through reuselib only."""
    importance: Literal["magnitude", "taylor", "activation", "random"] = "magnitude"
    """What matters: weights of large norm, |activation x gradient| of the loss, large activations, or chance."""
    round_to: int | None = None
    """Leave FFN units and channels in multiples of so many."""
    calibration: Calibration = Calibration()
    """Rows for `taylor`, `activation` and `sensitivity`."""

    def __post_init__(self) -> None:
        given = [name for name in SHARES if getattr(self, name) is not None]
        for name in given:
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be a share above 0 and below 1, got {getattr(self, name)}"
                )
        if not given and not self.blocks:
            raise ValueError(f"nothing is left out: set {', '.join(SHARES)} or blocks")
        if self.channels is not None and (given != ["channels"] or self.blocks):
            raise ValueError(
                "channels is for convolutional networks, and heads, ffn, hidden and blocks are for transformers: set "
                "channels alone, or leave it out"
            )
        self._refuse_idle(given)

    def _refuse_idle(self, given: Sequence[str]) -> None:
        """An option that would change nothing is an error."""
        if len(set(self.blocks)) != len(self.blocks):
            raise ValueError(f"blocks names one twice: {list(self.blocks)}")
        if self.round_to is not None and self.round_to < 2:
            raise ValueError(f"round_to must be at least 2, got {self.round_to}")
        if self.round_to is not None and not set(given) & {*WIDTHS}:
            raise ValueError(f"round_to has no effect without {' or '.join(WIDTHS)}")
        if self.scope != "uniform" and not set(given) & {*MANY_PLACES}:
            raise ValueError(f"scope has no effect without {' or '.join(MANY_PLACES)}")
        if self.importance != "magnitude" and not given:
            raise ValueError("importance has no effect: `blocks` names what goes")
        if self.scope == "sensitivity" and self.channels is not None:
            raise ValueError("scope=sensitivity is for heads and ffn, not for channels")
        looks = self.importance in NEED_ROWS or self.scope == "sensitivity"
        if self.calibration != Calibration() and not looks:
            raise ValueError(
                f"calibration has no effect with importance={self.importance}, which looks at no rows"
            )

    def follow(self, form: str) -> str:
        """See `Adapter.follow`; the zeros of a sparse model stay."""
        return form if form == "sparse" else super().follow(form)

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Choose, cut, and correct the configuration if it can say what came out."""
        before = _num_parameters(module)
        leave_out = self._parts if self.channels is None else self._channels
        adapted = leave_out(module, run)
        removed = 1 - _num_parameters(module) / before
        return replace(adapted, metrics={"share_removed": removed})

    def _channels(self, module: nn.Module, run: Run) -> Adapted:
        """Of a convolutional network."""
        from reuselib.pruning.channels import Channels, prune_channels

        self._refuse_new_loss(run)
        how = Channels(
            ratio=self.channels or 0.0,
            scope="global" if self.scope == "global" else "uniform",
            importance=self.importance,
            round_to=self.round_to,
            calibration=self.calibration,
        )
        pruned = prune_channels(module, run, how)
        return Adapted(module, pruned.structure, pruned.stock)

    def _parts(self, module: nn.Module, run: Run) -> Adapted:
        """Of a transformer."""
        from reuselib.network import axes, cutting, stating
        from reuselib.network.families import family

        found = family(module)
        stay = self._blocks_that_stay(found)
        keep, measured = self._keep(module, run, found, [found.blocks[index] for index in stay])
        plan = axes.plan(module, keep)
        record = Record(
            cut=plan,
            stacks=[(stack, len(found.of_stack(stack))) for stack in found.stacks],
            new=sorted(run.fresh),
            tied=cutting.tied_names(module),
        )
        stock = stating.resize(module, plan)
        return Adapted(module, record.to_json(), stock, byproducts=measured)

    def outline(self, module: nn.Module, run: Run) -> Adapted:
        """See `Adapter.outline`; by chance and in equal shares, which leaves about as much whatever matters."""
        if self.importance in NEED_ROWS or self.scope == "sensitivity":
            run.batches(self.calibration.num_rows, batch_size=self.calibration.batch_size)
        plain = replace(self, scope="uniform", importance="random", calibration=Calibration())
        return plain.adapt(module, run)

    def rebuild(self, module: nn.Module, structure: Json) -> nn.Module:
        """The same cut of a network with any weights."""
        from reuselib.network import cutting
        from reuselib.pruning.channels import replay_channels

        if self.channels is not None:
            return replay_channels(module, structure)
        cutting.cut(module, Record.of_json(structure).cut)
        return module

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Survivors are bit-equal at the recorded indices, nothing else is there, and no share is exceeded."""
        if self.channels is not None:
            yield from self._prove_channels(parents[0], child, structure)
            return
        record = Record.of_json(structure)
        yield from cut_out(parents[0], child, record)
        shares = {option: getattr(self, option) for option in ENDINGS}
        uniform = self.scope == "uniform"
        yield from as_asked(record, shares, self.blocks, uniform=uniform)

    # Choosing.

    def _blocks_that_stay(self, found: Family) -> list[int]:
        num_blocks = len(found.blocks)
        gone = {index + num_blocks if index < 0 else index for index in self.blocks}
        beyond = [index for index in self.blocks if not -num_blocks <= index < num_blocks]
        if beyond or len(gone) != len(self.blocks):
            raise IncompatibleStep(
                f"blocks={list(self.blocks)} "
                + (f"names {beyond[0]}" if beyond else "names one block from both ends")
                + f", but the network has {num_blocks} blocks",
                expected=f"different blocks from {-num_blocks} to {num_blocks - 1}",
                fix="correct `blocks`",
            )
        return [index for index in range(num_blocks) if index not in gone]

    def _keep(
        self, module: nn.Module, run: Run, found: Family, blocks: Sequence[Block]
    ) -> tuple[Keep, Mapping[str, Json]]:
        """What stays, and what was found out on the way."""
        from reuselib.network.axes import Keep
        from reuselib.pruning import budget

        shares = [name for name in SHARES if getattr(self, name) is not None]
        scores = self._scores(module, run) if shares else {}
        of_heads = budget.head_pools(found, blocks, scores) if shares else []
        of_units = budget.unit_pools(blocks, scores) if shares else []
        profile, measured = self._profile(module, run, of_heads, of_units)
        heads: Mapping[str, Sequence[int]] = {}
        units: Mapping[str, Sequence[int]] = {}
        hidden: Sequence[int] | None = None
        if self.heads is not None:
            heads = budget.chosen(of_heads, self._lost(of_heads, self.heads, profile))
        if self.ffn is not None:
            lost = self._lost(of_units, self.ffn, profile, self.round_to)
            units = budget.chosen(of_units, lost)
        if self.hidden is not None:
            pool = budget.hidden_pool(scores)
            hidden = pool.keep(budget.uniform([pool], self.hidden, self.round_to)[pool.name])
        kept = [index for index, block in enumerate(found.blocks) if block in blocks]
        keep = Keep(heads=heads, units=units, hidden=hidden, blocks=kept if self.blocks else None)
        return keep, measured

    def _scores(self, module: nn.Module, run: Run) -> Scores:
        from reuselib.pruning import importance

        if self.importance == "magnitude":
            return importance.by_weights(module, hidden=self.hidden is not None)
        if self.importance == "random":
            return importance.by_chance(module)
        self._refuse_new_loss(run)
        rows = self.calibration
        batches = run.batches(rows.num_rows, batch_size=rows.batch_size)
        return importance.by_rows(module, batches, run.task, self.importance)

    def _profile(
        self, module: nn.Module, run: Run, of_heads: Sequence[Pool], of_units: Sequence[Pool]
    ) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
        """What losing units of each pool costs, if that is asked for; and what of it was measured just now.

        What is measured is measured of heads and units both, so that a later step can use it for the other.
        """
        if self.scope != "sensitivity":
            return {}, {}
        from reuselib.pruning import sensitivity

        _refuse_new_head(run, "scope=sensitivity", "the output")
        rows = self.calibration
        setting: dict[str, Json] = {
            "task": as_json(run.task.describe()),
            "num_rows": rows.num_rows,
            "importance": self.importance,
        }
        asked = [*(of_heads if self.heads else ()), *(of_units if self.ffn else ())]
        known = sensitivity.recalled(run, setting, asked)
        if known is not None:
            return known, {}
        batches = run.batches(rows.num_rows, batch_size=rows.batch_size)
        measured = sensitivity.profile(module, run.task, batches, [*of_heads, *of_units])
        found = {**setting, **measured}
        return found, {sensitivity.NAME: found}

    def _refuse_new_loss(self, run: Run) -> None:
        if self.importance == "taylor":
            _refuse_new_head(run, "importance=taylor", "the loss")

    def _lost(
        self,
        pools: Sequence[Pool],
        share: float,
        profile: Mapping[str, Json],
        round_to: int | None = None,
    ) -> Mapping[str, int]:
        """How many units each part loses."""
        from reuselib.pruning import budget, sensitivity

        if self.scope == "sensitivity":
            return sensitivity.shared_out(pools, share, profile, round_to)
        if self.scope == "global":
            return budget.ranked(pools, share, round_to, weighed=self.importance != "taylor")
        return budget.uniform(pools, share, round_to)

    # Proving.

    def _prove_channels(
        self, parent: Weights, child: Weights, structure: Json
    ) -> Iterable[Finding]:
        from reuselib.pruning.channels import prove_channels

        share = self.channels if self.scope == "uniform" else None
        return prove_channels(parent, child, structure, share=share)


def _refuse_new_head(run: Run, option: str, what: str) -> None:
    if run.fresh:
        raise IncompatibleStep(
            f"{option} follows {what}, but {min(run.fresh)} is newly initialised, so {what} says nothing yet",
            expected="a model that was trained for the task",
            fix=f"put a `finetune` step before it, or choose another {option.partition('=')[0]}",
        )


def _num_parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())
