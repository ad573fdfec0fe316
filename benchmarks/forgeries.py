"""Are honest children proven, and forged ones found out? Prints what came of every claim of every adapter.

    python benchmarks/forgeries.py

Tiny models, so that it takes a minute: what is found out is arithmetic, and does not depend on size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rig import keep, machine

from reuselib.evidence.prove import prove_step
from reuselib.lineage.verify import verify
from reuselib.testing.forgeries import FORGERIES
from reuselib.testing.honest import CHAINS, Honest


def tried(honest: Honest) -> Iterator[dict[str, Any]]:
    """Every honest child, then every forgery of one, with what came of it."""
    for name in CHAINS:
        step = prove_step(honest.child(name), store=honest.store)
        yield {
            "relation": step.relation,
            "child": name,
            "claim": "honest",
            "tier": step.tier,
            "expected": "proven",
        }
    for number, forgery in enumerate(FORGERIES):
        folder = honest.folder / f"forged-{number}"
        step = forgery.try_on(honest, folder)
        broken = next((each for each in step.findings if each.holds is False), None)
        yield {
            "relation": step.relation,
            "child": forgery.child,
            "claim": forgery.what,
            "tier": step.tier,
            "expected": "broken",
            "foundBy": broken.claim if broken else "",
            "verifyPasses": verify(folder).ok,
        }


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(tried(Honest(Path(folder))))
    for row in rows:
        mark = "ok  " if row["tier"] == row["expected"] else "MISS"
        print(f"{mark} {row['relation']:<9} {row['child']:<19} {row['claim']}: {row['tier']}")
    shares: dict[str, Any] = {}
    for kind in ("proven", "broken"):
        of_kind = [row for row in rows if row["expected"] == kind]
        reached = sum(row["tier"] == kind for row in of_kind)
        shares[kind] = {"reached": reached, "of": len(of_kind)}
        print(
            f"{'honest proven' if kind == 'proven' else 'forged caught'}: {reached} of {len(of_kind)}"
        )
    keep({"machine": machine(), "rows": rows, "shares": shares}, "forgeries", options.output)


if __name__ == "__main__":
    main()
