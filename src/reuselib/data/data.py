"""Where rows come from, as a recipe says it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reuselib.data.parts import Part
from reuselib.data.rows import take
from reuselib.data.sources import Source, public_source, require_known, source_kind
from reuselib.data.splits import HOLDOUT, Splits, hold_out
from reuselib.errors import DataError

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.task import Rows


@dataclass(frozen=True, kw_only=True)
class Data:
    """Rows to train and to test on: where they are, and which of them serve which purpose."""

    source: str
    """Hub id (`org/name`), file (`./rows.jsonl`, also json, csv, tsv, parquet), folder with one
    such file a split (`./rows`), folder of images (`imagefolder:./photos`) or built-in sample
    (`sample:senses`)."""
    subset: str | None = None
    """Configuration of a hub data set that has several, such as `mrpc` of `nyu-mll/glue`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; resolved to a commit before anything is loaded."""
    train: str = "train"
    """Split to train on, perhaps a part of it: `train[:2000]`, `train[10%:20%]`. One file alone is
    called `train`."""
    validation: str | None = None
    """Split, part of one, or file for early stopping. Default: the split `validation`, unless it is
    the test split."""
    test: str | None = None
    """Split, part of one, or file to measure on. Default: the split `test`, else `validation`, else
    `holdout`."""
    holdout: float | None = None
    """Share of the training rows to hold out for testing, chosen by the hash of the row, when there
    is no test split. Default: 0.1."""

    def __post_init__(self) -> None:
        require_known(self.source)
        for part in (self.train, self.validation, self.test):
            if part is not None:
                Part.parse(part)
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise DataError(
                f"holdout is {self.holdout}",
                expected="a share between 0 and 1, such as 0.1",
                fix="give a share, or leave it out for a tenth",
            )
        if self.holdout is not None and self.test is not None:
            raise DataError(
                f"holdout {self.holdout} has no effect: the test rows come from '{self.test}'",
                expected="one of the two",
                fix="leave out `holdout` or `test`",
            )
        for name in ("subset", "revision"):
            if getattr(self, name) is not None and source_kind(self.source) != "hub":
                raise DataError(
                    f"{name} '{getattr(self, name)}' has no effect on '{self.source}'",
                    expected=f"a {name} with a hub id only",
                    fix=f"leave out `{name}`",
                )

    def load(self) -> Splits:
        """Read the rows of every split, check them and compute the digest of their content.

        Raises:
            SourceError: the source cannot be found.
            DataError: a split, a file or a row is not what it should be.
        """
        source = Source.open(self.source, subset=self.subset, revision=self.revision)
        parts = {"train": Part.parse(self.train)}
        test, validation = self._test(source), self._validation(source)
        if test is not None:
            parts["test"] = Part.parse(test)
        if validation is not None:
            parts["validation"] = Part.parse(validation)
        tables = {part.name: source.rows(part.name) for part in parts.values()}
        rows = {purpose: _cut(tables[part.name], part) for purpose, part in parts.items()}
        facts: dict[str, Json] = {
            purpose: str(replace(part, name=public_source(part.name)))
            for purpose, part in parts.items()
        }
        if test is None:
            share = self.holdout or HOLDOUT
            rows["train"], rows["test"] = hold_out(rows["train"], share, purpose="test")
            facts["holdout"] = share
        return Splits.build(rows, source=source.uri, facts={**source.facts, "parts": facts})

    def pin(self, splits: Splits) -> Data:
        """This data as a record says it, given what it loaded.

        Commit and defaults are written out, so that neither a moving branch nor a changed default
        changes what the record means; of files only the names remain.
        """
        parts: Any = splits.facts["parts"]
        revision: Any = splits.facts.get("revision")
        return replace(
            self,
            source=public_source(self.source),
            revision=revision,
            **parts,
        )

    def _test(self, source: Source) -> str | None:
        """The part to test on; None if it is to be held out."""
        if self.test is not None:
            return self.test
        taken = {Part.parse(part).name for part in (self.train, self.validation) if part}
        for name in ("test", "validation"):
            if name in source.tables and name not in taken:
                if self.holdout is not None:
                    raise DataError(
                        f"holdout {self.holdout} has no effect: "
                        f"'{self.source}' has a split '{name}'",
                        expected="no holdout where there is a split to test on",
                        fix=f"leave out `holdout`, or write `test: {name}`",
                    )
                return name
        return None

    def _validation(self, source: Source) -> str | None:
        if self.validation is not None or "validation" not in source.tables:
            return self.validation
        taken = {Part.parse(part).name for part in (self.train, self._test(source)) if part}
        return None if "validation" in taken else "validation"


def _cut(rows: Rows, part: Part) -> Rows:
    if not part.start and not part.stop:
        return rows
    return take(rows, part.indices(len(rows)))
