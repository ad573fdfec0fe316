"""Names for parts of a network: `head`, `backbone`, `block[-2:]`, `op:Linear`, or a glob.

A selector is one or more terms joined by ` & `, all of which must hold; a list of selectors is their
union. Terms:

- `all`, `head`, `backbone` (all but the head), `stem` (before the blocks), `tail` (after them)
- `block[2]`, `block[1:3]`, `block[-2:]`: counted as in Python, but never beyond the ends
- `op:Linear`: what lies in modules of that class, or of a class derived from it
- a glob on the name of a parameter or of a module with all it holds; it may begin at any dot, so
  `query` and `layer.0.*` need no prefix
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.errors import SelectorError
from reuselib.network.parts import Parts, parts, within

if TYPE_CHECKING:
    from torch import nn

_WORDS = ("all", "head", "backbone", "stem", "tail")
_BLOCK = re.compile(r"block\[\s*(?:(?P<index>-?\d+)|(?P<start>-?\d+)?\s*:\s*(?P<stop>-?\d+)?)\s*\]")


def select(module: nn.Module, selectors: Sequence[str], *, head: Sequence[str]) -> frozenset[str]:
    """The names of the parameters that any of the selectors matches.

    Args:
        module: any network.
        selectors: see the top of this file.
        head: names of the submodules that are the head, as `Task.head` gives them.

    Raises:
        SelectorError: a selector is malformed or matches nothing.
    """
    if isinstance(selectors, str):
        selectors = (selectors,)
    if not selectors:
        raise SelectorError(
            "there is no selector", expected="at least one", fix="write `all` for every parameter"
        )
    network = _Network(module, head)
    return frozenset().union(*(network.resolve(selector) for selector in selectors))


def select_modules(
    module: nn.Module, selectors: Sequence[str], *, head: Sequence[str]
) -> list[str]:
    """The names of the modules without children all of whose parameters are selected.

    A module that only borrows its parameter, such as an output layer tied to the embedding, is left out:
    changing it would change the lender as well.

    Raises:
        SelectorError: a selector is malformed, matches nothing, or matches no whole module.
    """
    chosen = select(module, selectors, head=head)
    own: dict[str, set[str]] = {}
    for name, _ in module.named_parameters():
        own.setdefault(name.rpartition(".")[0], set()).add(name)
    found = [
        name
        for name, submodule in module.named_modules()
        if name in own and not any(True for _ in submodule.children()) and own[name] <= chosen
    ]
    if not found:
        raise SelectorError(
            f"{_quoted(selectors)} selects {len(chosen)} parameters, but no module as a whole",
            expected="selectors that name modules, such as `op:Linear`",
            fix="name the module instead of one of its parameters",
        )
    return found


class _Network:
    """The names in one module, looked up once and matched many times."""

    def __init__(self, module: nn.Module, head: Sequence[str]) -> None:
        self._module = module
        self._head = head
        self._names = [name for name, _ in module.named_parameters()]

    @cached_property
    def _parts(self) -> Parts:
        return parts(self._module, self._head)

    def resolve(self, selector: str) -> frozenset[str]:
        terms = [term.strip() for term in selector.split("&")]
        chosen = frozenset(self._names).intersection(*(self._term(term) for term in terms))
        if not chosen:
            raise SelectorError(
                f"the selector '{selector}' matches nothing: no parameter is in all of "
                + ", ".join(f"'{term}'" for term in terms),
                expected="terms that overlap",
                fix="to join them instead, write them as separate selectors",
            )
        return chosen

    def _term(self, term: str) -> frozenset[str]:
        if term in _WORDS:
            return self._word(term)
        if term.startswith("block"):
            chosen = self._blocks(term)
            if chosen is not None:
                return chosen
        if term.startswith("op:"):
            return self._class(term)
        return self._glob(term)

    def _word(self, term: str) -> frozenset[str]:
        if term == "all":
            return frozenset(self._names)
        chosen: frozenset[str] = getattr(self._parts, term)
        if chosen:
            return chosen
        reason = f"this network has no {term}"
        fix = f"use one of: {', '.join(word for word in _WORDS if word != term)}, or a glob"
        if term == "head" and self._head:
            # An output layer tied to the embedding owns nothing; it is trained with the embedding.
            reason = f"the weights of the head ({', '.join(self._head)}) are shared with the stem"
            fix = "use `stem`, which holds the shared weights"
        raise SelectorError(f"the selector '{term}' matches nothing: {reason}", fix=fix)

    def _blocks(self, term: str) -> frozenset[str] | None:
        match = _BLOCK.fullmatch(term)
        num_blocks = len(self._parts.blocks)
        expected = f"`block[i]` or `block[i:j]` within the {num_blocks} blocks of this network"
        if match is None:
            if "[" not in term and any(self._matching(term)):
                return None
            raise SelectorError(
                f"the selector '{term}' is malformed", expected=expected, fix="write `block[-2:]`"
            )
        limits = [int(limit) for limit in match.groups() if limit is not None]
        if match["index"] is not None:
            index = int(match["index"])
            span = slice(index, index + 1 if index != -1 else None)
            beyond = not -num_blocks <= index < num_blocks
        else:
            start, stop = match["start"], match["stop"]
            span = slice(int(start) if start else None, int(stop) if stop else None)
            beyond = any(abs(limit) > num_blocks for limit in limits)
        chosen = frozenset().union(*self._parts.blocks[span])
        if beyond or not chosen:
            reason = "reaches beyond the blocks" if beyond and num_blocks else "matches nothing"
            raise SelectorError(
                f"the selector '{term}' {reason}: this network has {num_blocks} blocks",
                expected=expected if num_blocks else "a network with repeated blocks",
                fix=f"use `block[0]` to `block[{num_blocks - 1}]`" if num_blocks else "use a glob",
            )
        return chosen

    def _class(self, term: str) -> frozenset[str]:
        wanted = term.removeprefix("op:").strip()
        found: list[str] = []
        present: set[str] = set()
        for name, submodule in self._module.named_modules():
            present.add(type(submodule).__name__)
            if any(cls.__name__ == wanted for cls in type(submodule).__mro__[:-1]):
                found.append(name)
        chosen = frozenset(within(self._names, found))
        if not chosen:
            raise SelectorError(
                f"the selector '{term}' matches nothing: no module of class '{wanted}' has parameters",
                expected=f"a class of this network: {', '.join(sorted(present))}",
                fix=_nearest(wanted, present, "op:"),
            )
        return chosen

    def _glob(self, term: str) -> frozenset[str]:
        chosen = self._matching(term) if term else frozenset()
        if not chosen:
            what = f"the selector '{term}' matches nothing" if term else "a selector is empty"
            raise SelectorError(
                f"{what}: no parameter or module has such a name",
                expected=f"one of {', '.join(_WORDS)}, `block[i:j]` (of {len(self._parts.blocks)}), "
                "`op:Class`, or a glob on names",
                fix=_nearest(term, self._known(), ""),
            )
        return chosen

    def _matching(self, pattern: str) -> frozenset[str]:
        matches = re.compile(f"(?:.*\\.)?{fnmatch.translate(pattern)}").match
        roots = [name for name, _ in self._module.named_modules() if name and matches(name)]
        chosen = {name for name in self._names if matches(name)}
        return frozenset(chosen.union(within(self._names, roots)))

    def _known(self) -> set[str]:
        modules = {name for name, _ in self._module.named_modules() if name}
        ends = {name.rpartition(".")[2] for name in modules}
        return modules.union(ends, self._names, _WORDS)


def _nearest(wanted: str, known: set[str], prefix: str) -> str:
    close = difflib.get_close_matches(wanted, sorted(known), n=3, cutoff=0.5)
    if not close:
        return "print the names with `dict(module.named_parameters())`"
    return "did you mean " + " or ".join(f"`{prefix}{name}`" for name in close) + "?"


def _quoted(selectors: Sequence[str]) -> str:
    names = (selectors,) if isinstance(selectors, str) else selectors
    return ", ".join(f"'{name}'" for name in names)
