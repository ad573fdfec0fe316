"""A lineage as a tree in the terminal, one line a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reuselib.forensics.drawing import figures, headline, plain

if TYPE_CHECKING:
    from reuselib.forensics.graph import Line, Trace

_STYLES = {"broken": "red", "missing": "yellow", "declared": "yellow", "inferred": "yellow"}


def show_trace(trace: Trace) -> None:
    """Print a trace, and what was not checked."""
    from rich.console import Console

    console = Console(highlight=False)
    for line in trace.lines():
        style = _STYLES.get(line.edge.tier if line.edge else "")
        style = "red" if line.node.problem else style
        console.print(text_of(line, trace), markup=False, soft_wrap=True, style=style)
    worst = f"weakest edge: {trace.tier}" if trace.edges else "no edges"
    signed = f"; signed by {plain(trace.signer)}" if trace.signer else ""
    many = "1 model" if len(trace.nodes) == 1 else f"{len(trace.nodes)} models"
    console.print(f"{many}; {worst}{signed}", markup=False, soft_wrap=True)
    for at, what in enumerate(trace.unchecked):
        heading = "not checked:" if at == 0 else ""
        console.print(f"  {heading:<13}{plain(what)}", markup=False, soft_wrap=True, style="dim")


def text_of(line: Line, trace: Trace) -> str:
    """One line: how it hangs there, the model, how it was made, what that changed, and how well it is established."""
    node, edge = line.node, line.edge
    parts = [plain(node.name)]
    if edge is not None and edge.role != "base":
        parts[0] = f"{'as ' if trace.downwards else ''}{plain(edge.role)}: {parts[0]}"
    if line.again:
        return f"{_guides(line)}{parts[0]}  (drawn {'elsewhere' if trace.downwards else 'above'})"
    parts += [headline(node), figures(node), _tier(line, trace)]
    return _guides(line) + "  ".join(part for part in parts if part)


def _tier(line: Line, trace: Trace) -> str:
    """Of the edges to what the model was made from; one word if they are alike."""
    edges = trace.parents(line.node.id)
    tiers = {edge.tier for edge in edges}
    if len(tiers) == 1:
        return f"[{tiers.pop()}]"
    if tiers:
        return f"[{', '.join(f'{plain(edge.role)} {edge.tier}' for edge in edges)}]"
    # a model of which nothing is known but what its child says, unlike a base
    is_stub = line.node.relation == "unknown" and line.edge is not None
    return f"[{line.edge.tier}]" if is_stub and line.edge and not trace.downwards else ""


def _guides(line: Line) -> str:
    if line.depth == 0:
        return ""
    bars = "".join("   " if last else "│  " for last in line.is_last[1:-1])
    return f"{bars}{'└─ ' if line.is_last[-1] else '├─ '}"
