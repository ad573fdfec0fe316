"""When a training is kept on disk while it runs, what of it, and where it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reuselib.errors import IntegrityError, Interrupted, SourceError, StoreError, TrainingError
from reuselib.lineage.checkpoints import TITLE, Checkpoints, Title, differences, read
from reuselib.lineage.environment import processor, versions
from reuselib.training.checks import num_steps
from reuselib.training.interruption import Interruption
from reuselib.training.resuming import capture, resume
from reuselib.training.shares import is_sharded
from reuselib.training.state import STATE, State, prefixed, read_state, restore_weights, weights_of
from reuselib.training.state import write_state as write

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.training.loop import Loop

SHARE = 0.02
"""Of the time of a training that may go into its checkpoints."""
RATE, AT_LEAST = 2e8, 0.05
"""Bytes per second, and seconds, that a checkpoint is thought to take before one was written."""
MAX_TOLD = 12
"""Differences that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """Where a training goes on, see `Saver.begin`."""

    epoch: int = 0
    seconds: float = 0.0
    """That the training took before it was interrupted."""
    metrics: Mapping[str, float] | None = None
    """Of a training that had ended already."""


@dataclass(kw_only=True)
class Saver:
    """Keeps one training of one child."""

    place: Checkpoints
    training: int
    """Which of the child's, from 0."""
    inputs: Mapping[str, Json]
    """What the child is made of."""
    resume: Literal["auto", "no"] | Path = "auto"
    seconds: float | None = None
    """Longest time without a checkpoint; 0 for one after every step, whatever that costs."""
    keep: int = 2
    interruption: Interruption = field(default_factory=Interruption)
    tell: Callable[[str], None] = lambda _: None
    own: list[str] = field(default_factory=list[str])
    """Names of the checkpoints that this run wrote, or began at."""
    cost: float = 0.0
    """Seconds that the last one took."""
    agreed: tuple[bool, bool] = (False, False)
    """What several processes agreed on in the present step, see `wishes`."""
    spent: float = 0.0
    """Seconds that the training took before it was interrupted."""
    _began: float = 0.0
    _last: float = 0.0

    def begin(self, loop: Loop) -> Going:
        """Put a loop that has not begun where it is to go on. All processes call it.

        Raises:
            TrainingError: the checkpoint that was asked for is of another run; says what differs.
            SourceError, IntegrityError: it is not there, or was changed.
        """
        self._began = self._last = time.monotonic()
        weights = weights_of(loop.module, tuple(loop.stages.opens)).values()
        self.cost = AT_LEAST + 3 * sum(each.numel() * each.itemsize for each in weights) / RATE
        chosen = self._choose(loop) if loop.accelerator.is_main_process else None
        if loop.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            chosen = broadcast_object_list([chosen])[0]
        return Going() if chosen is None else self._go_on(loop, chosen)

    def wishes(self) -> tuple[bool, bool]:
        """Whether it is time for a checkpoint, and whether the training is to end."""
        return self._due(), self.interruption.requested

    def after(self, loop: Loop) -> None:
        """Do what is due after an optimizer step. All processes call it, after they agreed.

        Raises:
            Interrupted: the training was told to end.
        """
        many = loop.accelerator.num_processes > 1
        due, stop = self.agreed if many else self.wishes()
        if not (due or stop):
            return
        loop.watch.look()  # nothing is kept that is not finite
        folder, why = self._save(loop, capture(loop))
        if stop:
            if many:
                loop.accelerator.wait_for_everyone()  # who ends first may take the others with it
            raise Interrupted(loop.step, _total(loop), folder, why)

    def end(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        """Keep what came of a training, if doing it again would cost far more than that. All processes call it.

        Raises:
            Interrupted: it was told to end after its last step.
        """
        worth = bool(self.own) or self._worth_it(time.monotonic() - self._last)
        worth, stop = _agreed(loop, (worth, self.interruption.requested))
        if not (worth or stop):
            return
        weights = dict(prefixed("weights", weights_of(loop.module, tuple(loop.stages.opens))))
        state = State(step=loop.step, num_rows=loop.num_rows, num_targets=0.0, tensors=weights)
        folder, why = self._save(loop, state, metrics)
        if stop:
            _agreed(loop, (True, True))
            raise Interrupted(loop.step, loop.step, folder, why)

    def taken(self) -> float:
        """Seconds that the training took, with those before it was interrupted."""
        return self.spent + time.monotonic() - self._began

    def _due(self) -> bool:
        since = time.monotonic() - self._last
        return self.seconds is not None and since >= self.seconds and self._worth_it(since)

    def _worth_it(self, seconds: float) -> bool:
        if self.seconds is None:
            return False
        return self.seconds == 0 or self.cost <= SHARE * seconds

    def _save(
        self, loop: Loop, state: State, metrics: Mapping[str, float] | None = None
    ) -> tuple[Path | None, str]:
        """The folder; if it could not be written none, and why: the training goes on, and so do older ones."""
        if not loop.accelerator.is_main_process:
            return None, "by another process than the first"
        started = time.monotonic()
        title = replace(self._title(loop), ended=metrics is not None)
        notes = {**title.notes, **({} if metrics is None else {"metrics": dict(metrics)})}
        title = replace(title, notes=notes)
        try:
            with self.place.add(title) as folder:
                write(folder, state)
        except (StoreError, SourceError, IntegrityError) as error:
            self.tell(f"no checkpoint after step {loop.step}: {error.what}")
            return None, error.what
        finally:
            self._last = time.monotonic()
            self.cost = self._last - started
        self.own = [each for each in self.own if each != title.name] + [title.name]
        self._tidy(ended=metrics is not None)
        return self.place.folder / title.name, ""

    def _tidy(self, *, ended: bool) -> None:
        """Older ones go once the new one has been read back; what came of earlier trainings stays."""
        ends = [name for name in self.place.names() if name.endswith("-end")]
        newest = [] if ended else self.own[-max(self.keep, 1) :]
        self.place.keep_only({*ends, *newest})

    def _title(self, loop: Loop) -> Title:
        recorder = loop.recorder
        return Title(
            training=self.training,
            step=loop.step,
            num_steps=_total(loop),
            inputs=self.inputs,
            environment=surroundings(loop),
            notes={
                "seconds": self.taken(),
                "trail": None if recorder is None else recorder.notes(),
            },
        )

    def _choose(self, loop: Loop) -> str | None:
        """Folder of the checkpoint to go on from."""
        if self.resume == "no":
            return None
        here = self._title(loop)
        if isinstance(self.resume, Path):
            return str(self._asked(self.resume, here))
        for name in self.place.names(self.training):
            try:
                found, _ = read(self.place.folder / name)
            except (SourceError, IntegrityError) as error:
                self.tell(f"checkpoint {name} is passed over: {error.what}")
                continue
            odd = _apart(found, here)
            if not odd:
                return str(self.place.folder / name)
            self.tell(f"begins anew, since checkpoint {name} was made otherwise: {'; '.join(odd)}")
            return None
        return None

    def _asked(self, folder: Path, here: Title) -> Path:
        found, _ = read(folder)
        odd = _apart(found, here)
        if odd:
            more = f"\n  and {len(odd) - MAX_TOLD} more" if len(odd) > MAX_TOLD else ""
            raise TrainingError(
                "\n  ".join([f"the checkpoint at {folder} is of another run:", *odd[:MAX_TOLD]])
                + more,
                expected="one of this very step, made in this environment",
                fix="name another, or leave out --resume, which takes the newest that fits",
            )
        return folder

    def _go_on(self, loop: Loop, chosen: str) -> Going:
        folder = Path(chosen)
        title, files = read(folder)
        state = read_state(folder, files.get(STATE, ""))
        if folder.parent == self.place.folder:
            self.own.append(folder.name)
        when = _ago(folder / TITLE)
        if title.ended:
            restore_weights(state, loop.module, tuple(loop.stages.opens))
            loop.step, epoch = state.step, 0
            self.tell(f"had ended already, after step {title.step}{when}")
        else:
            epoch = resume(loop, state)
            self.tell(f"resumed after step {title.step} of {title.num_steps}{when}")
        notes: Mapping[str, Any] = title.notes
        self.spent = float(notes["seconds"])
        if loop.recorder is not None and notes["trail"] is not None:
            told = notes["trail"]
            after = max((each["step"] for each in told["entries"]), default=0)
            batches = [] if title.ended else _rows(loop, after, title.step)
            loop.recorder.resume(title.step, told, batches)
        if not title.ended:
            return Going(epoch=epoch, seconds=self.spent)
        return Going(metrics={name: float(value) for name, value in notes["metrics"].items()})


def surroundings(loop: Loop) -> dict[str, Json]:
    """What decides about the bits of a training besides its inputs."""
    import torch

    accelerator = loop.accelerator
    found: dict[str, Json] = {
        "versions": dict(versions()),
        "device": accelerator.device.type,
        "num_processes": accelerator.num_processes,
        "precision": str(accelerator.mixed_precision),
    }
    if is_sharded(loop.module):
        found["sharding"] = "fsdp2"
    if loop.prefix.way is not None:
        # rounding falls otherwise where frozen blocks run in every epoch, as they do with less room
        found["prefix_cache"] = loop.prefix.facts["prefix_cache"]
    if accelerator.device.type == "cpu":
        found["num_threads"] = torch.get_num_threads()
        capability = torch.backends.cpu.get_cpu_capability()
        found |= {"cpu": processor(), "capability": capability}
    return found


def _apart(there: Title, here: Title) -> list[str]:
    """In words, what differs between what two checkpoints are of."""
    return [
        *differences(there.inputs, here.inputs),
        *differences(
            {"training": there.training, "num_steps": there.num_steps},
            {"training": here.training, "num_steps": here.num_steps},
        ),
        *differences(there.environment, here.environment),
    ]


def _ago(path: Path) -> str:
    """How long ago a file was written, where the clock makes sense of it."""
    seconds = time.time() - path.stat().st_mtime
    if seconds < 0:
        return ""
    when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return f" ({seconds:.0f} s ago)" if seconds < 3600 else f" ({when:%Y-%m-%d %H:%M} UTC)"


def _rows(loop: Loop, after: int, step: int) -> list[list[int]]:
    """Rows of the steps after one up to another, both counted from 1."""
    size = loop.steps_per_epoch
    epochs = {epoch: loop.batches(epoch) for epoch in range(after // size, (step - 1) // size + 1)}
    return [epochs[at // size][at % size] for at in range(after, step)]


def _agreed(loop: Loop, wishes: tuple[bool, bool]) -> tuple[bool, bool]:
    """What at least one process wishes."""
    if loop.accelerator.num_processes == 1:
        return wishes
    import torch

    own = torch.tensor(wishes, dtype=torch.float64, device=loop.accelerator.device)
    one, other = loop.accelerator.reduce(own, "sum").tolist()
    return one > 0, other > 0


def _total(loop: Loop) -> int:
    return num_steps(loop.plan, len(loop.job.train))
