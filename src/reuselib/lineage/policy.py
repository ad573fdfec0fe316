"""What a verifier demands of a model folder: a file of the verifier's own, never one from the folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from reuselib.errors import Problem, RecipeError, SourceError
from reuselib.scanning.hazards import CODES
from reuselib.values.binding import FAILED, Binder
from reuselib.values.document import parse, spell

MAX_BYTES = 2**20
Demand: TypeAlias = Literal["proven", "replayed", "signed", "recorded"]
"""The tiers that a history can be made to reach; the others say that something is lacking."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a model must satisfy to be accepted. Without one, digests must match and nothing else is demanded."""

    trusted_keys: tuple[str, ...] = ()
    """PEM files of public keys whose signature counts, and is then demanded; relative to the policy file."""
    trusted_roots: tuple[str, ...] = ()
    """PEM files of certificate authorities; a signature by a certificate they issued counts, and is demanded."""
    identities: tuple[str, ...] = ()
    """Subject or alternative names that such a certificate must bear, one of them; empty: any."""
    require: tuple[Demand, ...] = ("recorded",)
    """Tiers that every edge of the history must reach, each by itself; `signed` if somebody is trusted."""
    unrecorded: Literal["refuse", "warn"] = "refuse"
    """What of a note or a picture that the record does not name. Whatever a library may load is always refused."""
    max_age_days: int | None = None
    """How long ago the model may have been made; older is `STALE`."""
    superseded: tuple[str, ...] = ()
    """SHA-256 of manifests that are no longer accepted, although everything in them holds."""
    licences: tuple[str, ...] = ()
    """SPDX identifiers that the model and all it was made from may have; empty: any. Unknown is not among them."""
    min_completeness: float | None = None
    """Share of the attributes of a good record that must be there, from 0 to 1."""
    claims: Literal["hold", "not contradicted"] = "not contradicted"
    """Whether `audit` accepts a claim that it cannot measure, and a model that makes none."""
    allow: tuple[str, ...] = ()
    """Codes of dangers that a scan may find and that are accepted, such as `TEMPLATE_CODE`."""
    source: Path | None = field(default=None, init=False, compare=False, repr=False)
    """The file it was read from."""

    def __post_init__(self) -> None:
        if problems := list(self._lists()) or list(self._problems()):
            raise RecipeError(problems)
        # A signature that could be stripped or replaced unnoticed would be worth nothing.
        if self.trusted_keys + self.trusted_roots and "signed" not in self.require:
            object.__setattr__(self, "require", (*self.require, "signed"))

    def _lists(self) -> Iterator[Problem]:
        """A text is a sequence too: of letters."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str) and isinstance(each.default, tuple):
                yield Problem("", each.name, f"expected a list, such as `[{value[:80]}]`")

    def _problems(self) -> Iterator[Problem]:
        for index, tier in enumerate(self.require):
            if tier not in get_args(Demand):
                yield Problem(
                    "",
                    spell(("require", index)),
                    f"`{tier}` cannot be demanded; there are: {', '.join(get_args(Demand))}",
                )
        if "signed" in self.require and not self.trusted_keys + self.trusted_roots:
            what = "`signed` needs somebody to trust: name `trusted_keys` or `trusted_roots`"
            yield Problem("", "require", what)
        if self.identities and not self.trusted_roots:
            what = "has no effect without `trusted_roots`: only certificates bear names"
            yield Problem("", "identities", what)
        if self.max_age_days is not None and self.max_age_days < 1:
            yield Problem("", "max_age_days", f"expected at least 1; got {self.max_age_days}")
        if self.min_completeness is not None and not 0 <= self.min_completeness <= 1:
            what = f"expected a share from 0 to 1; got {self.min_completeness}"
            yield Problem("", "min_completeness", what)
        dangers = [code for code, severity in CODES.items() if severity == "danger"]
        for index, code in enumerate(self.allow):
            if code not in dangers:
                what = (
                    f"`{code[:80]}` is no danger that a scan finds; there are: {', '.join(dangers)}"
                )
                yield Problem("", spell(("allow", index)), what)
        for index, digest in enumerate(self.superseded):
            if not re.fullmatch("[0-9a-f]{64}", digest):
                what = f"expected 64 lower-case hex digits; got {digest[:80]!r}"
                yield Problem("", spell(("superseded", index)), what)

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a policy file; see `parse`.

        Raises:
            SourceError: there is no such file, or it cannot be read.
            RecipeError: it is no policy, with every problem by file and line.
        """
        try:
            # A device or a huge file must not be read to its end to find out that it is no policy.
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SourceError(
                f"cannot read the policy {path}: {error.strerror}",
                expected="a YAML file of yours that says what you demand",
                fix="check the path",
            ) from error
        if len(data) > MAX_BYTES:
            what = f"is no policy: it has more than {MAX_BYTES:,} bytes, at most that are read"
            raise RecipeError([Problem(str(path), "", what)])
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
            raise RecipeError([Problem(str(path), "", what)]) from error
        policy = cls.parse(text, str(path), folder=path.absolute().parent)
        object.__setattr__(policy, "source", path)
        return policy

    @classmethod
    def parse(cls, text: str, name: str = "", *, folder: Path = Path()) -> Policy:
        """Read a policy from YAML, strictly: unknown and repeated keys are refused, nothing is converted.

        Args:
            text: the document.
            name: what to call it in problems.
            folder: what the paths in it are relative to.

        Raises:
            RecipeError: with every problem, by file and line.
        """
        document = parse(text, name)
        binder = Binder(document, {})
        policy = binder.bind(cls, document.value, ())
        problems = [*document.problems, *binder.problems]
        if problems or policy is FAILED:
            raise RecipeError(problems)
        for key in ("trusted_keys", "trusted_roots"):
            paths = [folder / each for each in getattr(policy, key)]
            problems += [
                document.problem((key, index), f"there is no file {path}")
                for index, path in enumerate(paths)
                if not _is_file(path)
            ]
            policy = replace(policy, **{key: tuple(map(str, paths))})
        if problems:
            raise RecipeError(problems)
        return policy


def policy_for(folder: Path, policy: Policy | str | Path | None) -> Policy | None:
    """The policy that a model folder is to be judged by, read if it is given as a file.

    Raises:
        SourceError: there is no such file, or it cannot be read.
        RecipeError: it is no policy, or lies in the folder, so that whoever made the folder could have written it.
    """
    if isinstance(policy, str | Path):
        policy = Policy.read(Path(policy))
    source = policy.source if policy is not None else None
    if source is not None and source.resolve().is_relative_to(folder.resolve()):
        what = "lies in the model folder, so whoever made the folder wrote it; keep yours elsewhere"
        raise RecipeError([Problem(str(source), "", what)])
    return policy


def demanding(policy: Policy, tiers: Sequence[Demand], *, keys: Sequence[str] = ()) -> Policy:
    """The same policy with more tiers demanded, and more keys trusted."""
    more = replace(
        policy,
        trusted_keys=(*policy.trusted_keys, *keys),
        require=tuple(dict.fromkeys((*policy.require, *tiers))),
    )
    object.__setattr__(more, "source", policy.source)
    return more


def demands(path: Path | None, *, keys: Sequence[Path] = ()) -> Policy | None:
    """The policy in a file, with a signature by one of `keys` demanded besides; None if neither is given.

    Raises:
        SourceError: the policy or a key is not there.
        RecipeError: the file is no policy.
    """
    if path is None and not keys:
        return None
    for key in keys:
        if not _is_file(key):
            raise SourceError(f"there is no file {key}", expected="a public key", fix="check it")
    policy = Policy() if path is None else Policy.read(path)
    if not keys:
        return policy
    return demanding(policy, ("signed",), keys=[str(key) for key in keys])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name too long, or with a NUL in it.
        return False
