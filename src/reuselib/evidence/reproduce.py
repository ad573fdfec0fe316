"""Making a model again from its manifest, wholly or in part, and comparing what comes of it with the record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.data import Data, Splits
from reuselib.errors import (
    DataError,
    IntegrityError,
    MissingExtra,
    RecipeError,
    ReuseError,
    SourceError,
    StoreError,
    UnsafeModel,
)
from reuselib.evidence.closeness import environment_differences, fact_differences
from reuselib.evidence.judgement import Made, judge_whole
from reuselib.evidence.recorded import Recorded
from reuselib.evidence.replanning import Replan, Rows, find_rows, replanned
from reuselib.evidence.whereabouts import Whereabouts
from reuselib.evidence.window_judgement import judge_window
from reuselib.evidence.windows import Chosen, Window, choose
from reuselib.lineage.environment import environment
from reuselib.lineage.report import Problem
from reuselib.lineage.verify import verify

if TYPE_CHECKING:
    from reuselib.derivation.link import Link
    from reuselib.derivation.session import Session
    from reuselib.evidence.paired import Paired
    from reuselib.evidence.reproduction import Reproduction
    from reuselib.lineage.store import Store
    from reuselib.model.opening import Opened
    from reuselib.progress import Report
    from reuselib.training.replay import Replay

__all__ = ["Window", "reproduce"]

_NOT_HERE = (SourceError, RecipeError, MissingExtra, StoreError, UnsafeModel)
"""Errors that say something of this machine and of what is allowed on it, and nothing of the record."""


def reproduce(
    folder: Path,
    *,
    window: Window | None = None,
    data: str | Data | Splits | None = None,
    parents: Sequence[Path] = (),
    store: Path | Store | None = None,
    report: Report | None = None,
) -> Reproduction:
    """Make the last step of a model again and compare, in a scratch folder of the store: nothing is kept.

    The record is verified first, then the rows are compared by digest, then the parents. Of a training, a window of
    its steps may be held against its trail instead of doing all of it again: evidence for a part of the price, not
    proof.

    Args:
        folder: a derived model.
        window: which part of its training; default: the whole step, from the parent to the finished weights.
        data: where the rows are, if not where the manifest says; or the rows.
        parents: folders of parents or of any ancestors, in any order; they are recognised by their bytes.
        store: where to look for the others, and for kept states; default: the user's store.
        report: called with the progress.

    Raises:
        SourceError: the folder, one of `parents` or `data` is not there.
        DataError: what `data` names cannot be read.
        IntegrityError: `MISSING_LINEAGE`, no step made the folder; or one of `parents` cannot be read safely.
    """
    found = verify(folder)
    recorded = Recorded.read(folder)
    if not found.ok:
        why = "the folder is not what its record says"
        return replace(recorded.unknown(), verdict="differs", why=why, problems=found.problems)
    sources = Whereabouts.of(parents, store, recorded.chain.manifests)
    rows = find_rows(recorded.manifest, data)
    if rows.mismatch:
        return _other_rows(recorded, rows.mismatch, given=data is not None)
    chosen = _chosen(recorded, window, sources)
    missing = rows.missing if recorded.trails else ""
    if isinstance(chosen, str) or missing:
        why = chosen if isinstance(chosen, str) else missing
        return replace(recorded.unknown(), why=why)
    attempt = _Attempt(recorded, sources, rows, chosen, report)
    return attempt.run()


def _other_rows(recorded: Recorded, mismatch: str, *, given: bool) -> Reproduction:
    """What it means that rows are others: nothing about a step that learns from none, if they were only given."""
    problem = Problem("DATA_MISMATCH", mismatch)
    if given and not recorded.trails:
        why = "the rows that were given are not the recorded ones; name those with --data"
        return replace(recorded.unknown(), why=why, problems=(problem,))
    why = "these are not the rows that it is recorded to be made from"
    return replace(recorded.unknown(), verdict="differs", why=why, problems=(problem,))


def _chosen(recorded: Recorded, window: Window | None, sources: Whereabouts) -> Chosen | str | None:
    """The part that can be done again, or why it cannot; None for the whole step."""
    if window is None:
        return None
    if not recorded.trails:
        return "this step has no trail, because it trained nothing or was recorded without; leave out the window"
    return choose(window, recorded.trails[0], sources.store, recorded.internal.derivation_id)


@dataclass
class _Attempt:
    """One step to be done again, with its record sound and its rows the recorded ones."""

    recorded: Recorded
    sources: Whereabouts
    rows: Rows
    chosen: Chosen | None
    report: Report | None
    excuses: tuple[str, ...] = ()
    """How this machine differs from the recorded one."""

    def run(self) -> Reproduction:
        """What goes wrong on the way is an answer too, whatever adapter or structure a stranger recorded."""
        unknown = self.recorded.unknown()
        try:
            return self._compared()
        except _NOT_HERE as error:
            return replace(unknown, why=error.what)
        except IntegrityError as error:
            # a state that is bound by the trail, and yet is not on it, contradicts the record by itself
            verdict = "differs" if error.code == "BAD_STATE" else "cannot check"
            problems = (Problem.of(error),)
            return replace(unknown, verdict=verdict, why=error.what, problems=problems)
        except ReuseError as error:
            failed, why = error, f"the step fails here: {error.what}"
            if isinstance(error, DataError) and self.rows.missing:
                why = f"the step needs its rows to be done again: {self.rows.missing}"
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            failed, why = error, f"the step fails here: {type(error).__name__}: {error}"
        excused = (
            bool(self.excuses) or self.rows.splits is None or not isinstance(failed, ReuseError)
        )
        return replace(
            unknown,
            verdict="cannot check" if excused else "differs",
            why=why,
            environment=self.excuses,
        )

    def _compared(self) -> Reproduction:
        from reuselib.derivation.link import Link
        from reuselib.derivation.session import begin
        from reuselib.training.threads import as_many

        recorded = self.recorded
        threads = recorded.num_threads
        # sums are divided among threads as they were, which decides their last bits
        with (
            nullcontext() if threads is None else as_many(threads),
            replanned(recorded.manifest, recorded.history, self.sources, self.rows.splits) as again,
        ):
            self.excuses = self._differences()
            opened, session = begin(again.plan, again.parent.folder)
            link = Link(again.plan, again.adapter, again.parent)
            session = replace(
                link.session(session, opened.form),
                report=self.report,
                replays=self._replays(),
                cache_bytes=recorded.cache_bytes,  # more or less room is another way to train
            )
            if self.chosen is None:
                return self._whole(link, opened, session, again)
            return self._window(link, opened, session, again)

    def _replays(self) -> tuple[Replay, ...]:
        from reuselib.training.replay import Replay
        from reuselib.training.state import read_state

        chosen, trails = self.chosen, self.recorded.trails
        if chosen is None:
            return tuple(Replay(trail=trail) for trail in trails)
        start = None
        if chosen.start is not None:
            made = self.recorded.internal.derivation_id
            place = self.sources.store.states.place(made, str(chosen.start.step))
            start = read_state(place, chosen.start.kept)
        return (Replay(trail=trails[0], start=start, stop=chosen.stop),)

    def _whole(self, link: Link, opened: Opened, session: Session, again: Replan) -> Reproduction:
        from reuselib.derivation.plan import identity
        from reuselib.derivation.recording import settled
        from reuselib.derivation.step import perform
        from reuselib.evidence.paired import measure_both

        outcome = perform(
            link.adapter,
            opened,
            session,
            identity=identity(link.parent.manifest),
            folder=again.output,
        )
        internal = settled(link, outcome)
        self.excuses += fact_differences(self.recorded.internal.facts, internal.facts)

        def measure() -> Paired | None:
            again = outcome.opened.module, outcome.opened.processor
            return measure_both(self.recorded.folder, again, session)

        made = Made(again.output, internal, outcome.trails, measure)
        return judge_whole(self.recorded, made, self.excuses)

    def _window(self, link: Link, opened: Opened, session: Session, again: Replan) -> Reproduction:
        from reuselib.derivation.plan import identity
        from reuselib.derivation.step import perform
        from reuselib.training.replay import Stopped

        assert self.chosen is not None
        try:
            perform(
                link.adapter,
                opened,
                session,
                identity=identity(link.parent.manifest),
                folder=again.output,
            )
        except Stopped as stopped:
            return judge_window(
                self.recorded, self.chosen, stopped.trail, stopped.rows, self.excuses
            )
        why = f"the training ended before step {self.chosen.stop}, which is recorded"
        return replace(self.recorded.unknown(), verdict="differs", why=why)

    def _differences(self) -> tuple[str, ...]:
        """What may make the same step give other bits here."""
        from reuselib.training.device import target_device

        internal, here = self.recorded.internal, target_device().type  # now torch is loaded, so
        found = environment_differences(self.recorded.environment, environment())
        if here != internal.device:
            found += (f"device: recorded {internal.device}, here {here}",)
        if internal.world_size != 1:
            found += (f"processes: recorded {internal.world_size}, here 1",)
        if internal.determinism != "strict":
            found += (f"determinism: recorded as {internal.determinism}",)
        return found
