"""What licences allow and demand, as a small table. Advice to look closer, and not legal advice.

A licence is put into one of a few classes, and a row for each class says what it means to derive a model under it. What
is not in the table is `unknown`, and unknown is not permissive. Sources: the licences' own texts; the classes follow
Laufer et al. (2025) and ModelGo (Duan et al., 2024), cut down to what can be said from a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Class: TypeAlias = Literal[
    "public", "permissive", "weak copyleft", "copyleft", "network copyleft", "share-alike", "attribution",
    "non-commercial", "no derivatives", "use-restricted", "research", "unknown",
]  # fmt: skip

_NAMES: dict[Class, str] = {
    "public": "cc0-1.0 unlicense wtfpl pddl pddl-1.0 0bsd",
    "permissive": "mit mit-0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib ncsa ecl-2.0 afl-3.0 "
    "artistic-2.0 bsl-1.0 postgresql cdla-permissive-1.0 cdla-permissive-2.0 python-2.0 psf-2.0 openmdw-1.0",
    "attribution": "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 odc-by odc-by-1.0 etalab-2.0",
    "weak copyleft": "lgpl lgpl-2.1 lgpl-2.1-only lgpl-2.1-or-later lgpl-3.0 lgpl-3.0-only lgpl-3.0-or-later lgpl-lr "
    "mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 cdla-sharing-1.0 ms-pl",
    "copyleft": "gpl gpl-2.0 gpl-2.0-only gpl-2.0-or-later gpl-3.0 gpl-3.0-only gpl-3.0-or-later osl-3.0 gfdl",
    "network copyleft": "agpl-3.0 agpl-3.0-only agpl-3.0-or-later",
    "share-alike": "cc-by-sa-3.0 cc-by-sa-4.0 odbl odbl-1.0",
    "non-commercial": "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 c-uda "
    "deepfloyd-if-license fair-noncommercial-research-license",
    "no derivatives": "cc-by-nd-3.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
    "use-restricted": "openrail openrail++ creativeml-openrail-m bigscience-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma tii-falcon-llm falcon-llm-license "
    "ai2-impact qwen deepseek deepseek-license health-ai-developer-foundations",
    "research": "apple-amlr apple-ascl intel-research mistral-research mrl qwen-research",
}  # fmt: skip
LICENCES: dict[str, Class] = {
    name: kind for kind, names in _NAMES.items() for name in names.split()
}
"""Class by name in lower case: SPDX identifiers, and names that model hubs use."""

Relation: TypeAlias = Literal["derives", "combines", "adapts", "learns from", "trained on"]
"""How a child's terms depend on what it was made from: its weights go on in the child, go on beside others', stay apart
and are needed (an adapter), were only listened to (a teacher), or are rows."""


@dataclass(frozen=True)
class Terms:
    """What one class of licences means for whoever derives."""

    obligations: tuple[str, ...] = ()
    """What must be done when the child is passed on."""
    kept: bool = False
    """Whether the child must stay under the same licence, or terms that demand the same."""
    forbidden: str = ""
    """Why no child may be passed on, if so."""


TERMS: dict[Class, Terms] = {
    "public": Terms(),
    "permissive": Terms(("keep the licence text and copyright notices",)),
    "attribution": Terms(("name the authors, and say what was changed",)),
    "weak copyleft": Terms(("pass on changes to it under the same licence",), kept=True),
    "copyleft": Terms(("pass the whole on under the same licence",), kept=True),
    "network copyleft": Terms(
        ("pass the whole on under the same licence, also to those who use it over a network",), kept=True
    ),
    "share-alike": Terms(
        ("name the authors, and say what was changed", "pass it on under the same licence"), kept=True
    ),
    "non-commercial": Terms(
        ("use it without commercial purpose", "name the authors, and say what was changed"), kept=True
    ),
    "no derivatives": Terms(forbidden="it forbids passing on anything derived"),
    "use-restricted": Terms(
        ("pass its restrictions of use on", "keep its notice and, where it asks for that, its name"), kept=True
    ),
    "research": Terms(("use it for research only",), kept=True),
    "unknown": Terms(("find out its terms: what is unknown allows nothing",)),
}  # fmt: skip
_OPEN: tuple[Class, ...] = ("public", "permissive", "attribution")
"""Classes that ask nothing of the terms of a child."""


def class_of(name: str) -> Class:
    """The class of one identifier; of an expression such as `MIT AND GPL-3.0` the strictest, of `OR` the mildest.

    `WITH` an exception, and anything with brackets, is unknown: an exception is read by people.
    """
    text = re.sub(r"\s+", " ", name.strip().lower())
    if "(" in text or " with " in text:
        return "unknown"
    options: list[Class] = [_strictest(part.split(" and ")) for part in text.split(" or ")]
    return min(options, key=_ORDER.index)


def _strictest(names: Iterable[str]) -> Class:
    classes: list[Class] = [LICENCES.get(each.strip(), "unknown") for each in names]
    return max(classes, key=_ORDER.index)


_ORDER: tuple[Class, ...] = (
    "public", "permissive", "attribution", "weak copyleft", "share-alike", "copyleft", "network copyleft",
    "use-restricted", "non-commercial", "research", "no derivatives", "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What one edge means for the terms of the child."""

    conflict: str = ""
    obligations: tuple[str, ...] = ()
    doubt: str = ""
    """What is not known and would decide."""


def judge(parent: str, relation: Relation, child: str) -> Judgement:
    """What a parent's terms mean for a child's.

    Args:
        parent: name of the licence of what the child was made from; empty if none is stated.
        relation: how.
        child: name of the child's licence; empty if none is stated.
    """
    above, below = (
        class_of(parent) if parent else "unknown",
        class_of(child) if child else "unknown",
    )
    terms = TERMS[above]
    if above == "unknown":
        told = f"the licence {parent!r} is not in the table" if parent else "no licence is stated"
        return Judgement(doubt=f"{told}; unknown is not permissive", obligations=terms.obligations)
    if relation in ("learns from", "trained on"):
        return _judge_listening(above, below, terms, relation)
    if terms.forbidden:
        return Judgement(f"{parent} ({above}): {terms.forbidden}")
    if relation == "adapts":
        # the parent's weights are not passed on; whoever uses the child gets them with their own terms
        return Judgement(obligations=(f"whoever uses the adapter needs its base, under {parent}",))
    if not terms.kept or _same(parent, child):
        return Judgement(obligations=terms.obligations)
    if not child:
        return Judgement(
            doubt=f"the child states no licence, and {parent} must be kept",
            obligations=terms.obligations,
        )
    if below == "unknown":
        return Judgement(doubt=f"the child's licence {child!r} is not in the table, and {parent} must be kept",
                         obligations=terms.obligations)  # fmt: skip
    if _carries(above, below):
        return Judgement(
            obligations=terms.obligations,
            doubt=f"{child} may or may not keep all that {parent} demands",
        )
    return Judgement(
        f"{parent} ({above}) must be kept, and the child is under {child} ({below})",
        terms.obligations,
    )


def _judge_listening(above: Class, below: Class, terms: Terms, relation: Relation) -> Judgement:
    """Whether terms reach a model that only learned from something is not settled; what they say is passed on."""
    what = "the teacher's" if relation == "learns from" else "the rows'"
    if above in _OPEN:
        return Judgement(obligations=terms.obligations if above == "attribution" else ())
    restricted = above in ("non-commercial", "research", "use-restricted", "no derivatives")
    if restricted and below in (
        *_OPEN,
        "weak copyleft",
        "copyleft",
        "share-alike",
        "network copyleft",
    ):
        return Judgement(
            doubt=f"{what} terms are {above}, and the child allows more; whether they reach it is disputed"
        )
    return Judgement(obligations=terms.obligations)


def keep_each_other(one: str, other: str) -> bool:
    """Whether weights under two licences may go into one model, as far as the table tells."""
    first, second = class_of(one), class_of(other)
    both_kept = TERMS[first].kept and TERMS[second].kept
    return not both_kept or _same(one, other) or _carries(first, second) or _carries(second, first)


def _same(parent: str, child: str) -> bool:
    strip = re.compile(r"-(only|or-later)$")
    return strip.sub("", parent.strip().lower()) == strip.sub("", child.strip().lower())


def _carries(above: Class, below: Class) -> bool:
    """Whether a licence of one class may demand what one of another does, so that only a reader can tell."""
    return below == above or (above, below) in {
        ("weak copyleft", "copyleft"),
        ("weak copyleft", "network copyleft"),
        ("copyleft", "network copyleft"),
        ("share-alike", "copyleft"),
        ("use-restricted", "non-commercial"),
        ("use-restricted", "research"),
        ("research", "non-commercial"),
        ("non-commercial", "research"),
    }
