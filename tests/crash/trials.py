"""One attempt: a command is disturbed, what is there is looked at, the next commands must end as if nothing had been."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from crash.attempts import Attempt, Tally
from crash.disks import write_tree
from crash.inspection import corrupt_checkpoints, faults, unpacked, whole
from crash.server import Ended, Job, Server
from crash.world import Place, Reference

NUM_STEPS = {"run": 4, "other": 3}
"""Of the two recipes."""


@dataclass
class Trial:
    """In a place that is prepared."""

    attempt: Attempt
    server: Server
    place: Place
    reference: Reference
    tally: Tally = field(default_factory=Tally)
    problems: list[str] = field(default_factory=list[str])

    def carry_out(self) -> Tally:
        """Do all of it; gives what came of it.

        Raises:
            TimeoutError: a command hangs.
        """
        if self.attempt.beside:
            self._run_beside()
        else:
            self._disturb()
            self._disturb_again()
        self._conclude()
        self.tally.problems = [f"{self.attempt}: {each}" for each in self.problems]
        return self.tally

    def _disturb(self) -> None:
        attempt, tally = self.attempt, self.tally
        if attempt.cut is not None:
            write_tree(attempt.cut.tree, self.place.disk)
            tally.tried = 1
        else:
            ended = self.server.run(attempt.job(self.place, self.reference.seconds))
            # a command may take fewer operations than the undisturbed one: then nothing went wrong
            reached = ended.num_operations is None or ended.num_operations > attempt.at
            failed = attempt.kind == "fault" and reached
            tally.tried += ended.code is None or failed
            if failed:
                self.problems += unexplained(ended)
                tally.refused += ended.code != 0
        self._look()

    def _disturb_again(self) -> None:
        if self.attempt.second is None:
            return
        job = Job(
            arguments=self.place.command(self._then[0]),
            watched=self.place.disk,
            kill_after=self.attempt.second * self.reference.seconds,
        )
        self.tally.tried += self.server.run(job).code is None
        self._look()

    def _run_beside(self) -> None:
        """Two at once, of which the first is disturbed: the second must end as if it were alone."""
        attempt, seconds = self.attempt, self.reference.seconds
        beside = Job(
            arguments=self.place.command(attempt.beside),
            watched=self.place.disk,
            kill_after=None if attempt.second is None else attempt.second * seconds,
        )
        both = self.server.run_all([attempt.job(self.place, seconds), beside])
        commands = (attempt.command, attempt.beside)
        self.tally.tried += sum(each.code is None for each in both)
        for command, ended in zip(commands, both, strict=True):
            self.tally.waited += "which makes the same child" in ended.said
            if ended.code is None:
                continue
            if ended.code:
                self.problems.append(f"{command} ended with {ended.code}: {ended.said[-600:]}")
            self.problems += self._delivered(command)
        if all(each.code == 0 for each in both):
            self.problems += self._made_once(both)
        self._look()

    def _delivered(self, command: str) -> list[str]:
        """Whether the output of a recipe is what it must be in the end."""
        if command == "other":
            right = whole(self.place.other_output) == self.reference.other
        else:
            right = whole(self.place.output) == self.reference.last
        return [] if right else [f"the output of {command} is not the child"]

    def _made_once(self, both: list[Ended]) -> list[str]:
        """Whether two undisturbed runs shared what both needed."""
        commands = (self.attempt.command, self.attempt.beside)
        num_made = sum(
            NUM_STEPS[command] - num_reused(each.said, NUM_STEPS[command])
            for command, each in zip(commands, both, strict=True)
        )
        if num_made == len(self.reference.children):
            return []
        return [f"{num_made} children were made, {len(self.reference.children)} were needed"]

    def _look(self) -> None:
        wrong = faults(self.place, self.reference)
        corrupt = corrupt_checkpoints(self.place, self.reference)
        self.tally.lost += sum(each.startswith("child ") for each in wrong)
        self.tally.corrupt += len(corrupt)
        self.problems += [*wrong, *corrupt]

    def _conclude(self) -> None:
        resumed = False
        for command in self._then:
            job = Job(arguments=self.place.command(command), watched=self.place.disk)
            ended = self.server.run(job)
            resumed = resumed or "resumed after step" in ended.said
            if ended.code != 0:
                self.problems.append(
                    f"the next {command} ended with {ended.code}: {ended.said[-600:]}"
                )
            if command == "other":
                self.problems += self._delivered(command)
        wrong = faults(self.place, self.reference, finished=True)
        if self.attempt.scene in ("gc", "unpack", "limit"):
            wrong += unpacked(self.place, self.reference)
        self.tally.lost += sum(each.startswith("child ") for each in wrong)
        self.problems += wrong
        if not self.problems:
            self.tally.recovered = self.tally.tried
            self.tally.resumed = int(resumed)

    @property
    def _then(self) -> tuple[str, ...]:
        """What follows; all of it must end well."""
        scene = self.attempt.scene
        if scene in ("gc", "unpack"):
            return ("run", "gc") if self.attempt.number % 2 else ("gc", "run")
        if scene == "limit":
            return ("run", "other", "gc")
        return ("run", "other") if scene == "pair" else ("run",)


def num_reused(said: str, num_steps: int) -> int:
    """How many children a run of so many steps took from the store, as it says."""
    if "nothing was computed" in said:
        return num_steps
    found = re.search("^from the store: (.*)$", said, re.MULTILINE)
    return len(found[1].split(",")) if found else 0


def unexplained(ended: Ended) -> list[str]:
    """A failed write must end in success, or in an error that says what to do."""
    told = "\nfix: " in ended.said and "This is a bug" not in ended.said
    if ended.code == 0 or (ended.code in (3, 5) and told and "Traceback" not in ended.said):
        return []
    return [f"no words for it, code {ended.code}: {ended.said[-600:]}"]


def must(ended: Ended) -> Ended:
    """Let an undisturbed run end well."""
    if ended.code != 0:
        raise RuntimeError(f"an undisturbed run failed: {ended.said[-3000:]}")
    return ended
