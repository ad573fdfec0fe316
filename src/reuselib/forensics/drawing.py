"""A lineage as text for other tools. Names come from strangers, so nothing in them may mean anything there."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from reuselib.forensics.settings import in_short
from reuselib.values.visible import visible

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.forensics.graph import Edge, Form, Node, Trace

_MAX_NAME = 200
_STYLES = {"broken": "dashed", "missing": "dashed", "declared": "dotted", "inferred": "dotted"}
_URN = "urn:reuselib:"


def draw(trace: Trace, form: Form) -> str:
    """The graph as Graphviz `dot`, as `mermaid`, or as W3C PROV-JSON."""
    return {"dot": _dot, "mermaid": _mermaid, "prov": _prov}[form](trace)


def plain(text: str) -> str:
    r"""One line that shows what a text holds: control, direction and other invisible characters as `\u202e`."""
    return visible(text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}...")


def headline(node: Node) -> str:
    """What a node is, in one line."""
    if node.problem:
        return f"cannot be read: {plain(node.problem)}"
    if node.relation == "unknown":
        return "no manifest"
    if node.adapter is None:
        return "base" + (f", {plain(node.uri)}" if node.uri else "")
    settings = in_short(node.settings)
    kind = node.relation if node.relation == node.adapter else f"{node.relation} by {node.adapter}"
    return plain(f"{kind} {settings}" if settings else kind)


def figures(node: Node) -> str:
    """How the metric that decides changed; empty if that is not known."""
    change = node.change
    if change is None:
        return ""
    before = f"{change.before:.3f} -> " if change.before is not None else ""
    return f"{plain(change.metric)} {before}{change.after:.3f}"


def _label(node: Node) -> list[str]:
    return [each for each in (plain(node.name), headline(node), figures(node)) if each]


def _tie(edge: Edge) -> str:
    return f"{plain(edge.role)}, {edge.tier}"


def _dot(trace: Trace) -> str:
    numbers = {node.id: f"n{at}" for at, node in enumerate(trace.nodes)}
    lines = ["digraph lineage {", "  rankdir=BT;", "  node [shape=box];"]
    for node in trace.nodes:
        label = "\\n".join(_quoted(part) for part in _label(node))
        lines.append(f'  {numbers[node.id]} [label="{label}"];')
    for edge in trace.edges:
        style = f", style={_STYLES[edge.tier]}" if edge.tier in _STYLES else ""
        ends = f"{numbers[edge.child]} -> {numbers[edge.parent]}"
        lines.append(f'  {ends} [label="{_quoted(_tie(edge))}"{style}];')
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    """For inside the quotes of dot, where a backslash begins an escape of its own."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _mermaid(trace: Trace) -> str:
    numbers = {node.id: f"n{at}" for at, node in enumerate(trace.nodes)}
    lines = ["flowchart BT"]
    for node in trace.nodes:
        label = "<br/>".join(_entities(part) for part in _label(node))
        lines.append(f'  {numbers[node.id]}["{label}"]')
    for edge in trace.edges:
        arrow = "-.->" if edge.tier in _STYLES else "-->"
        label = f'|"{_entities(_tie(edge))}"|'
        lines.append(f"  {numbers[edge.child]} {arrow}{label} {numbers[edge.parent]}")
    return "\n".join([*lines, ""])


def _entities(text: str) -> str:
    """As mermaid writes characters that have a meaning in it, in Markdown or in HTML."""
    return re.sub(r"[^\w .,:=()/@-]", lambda match: f"#{ord(match[0])};", text)


def _prov(trace: Trace) -> str:
    """PROV-JSON (W3C member submission of 24 April 2013): models are entities, derivations are activities."""
    entities: dict[str, Json] = {}
    activities: dict[str, Json] = {}
    made: dict[str, Json] = {}
    for node in trace.nodes:
        entities[_name("model", node.id)] = _entity(node)
        if node.adapter is not None:
            activities[_name("run", node.id)] = _activity(node)
            ends = {"prov:entity": _name("model", node.id), "prov:activity": _name("run", node.id)}
            made[f"_:made{len(made)}"] = ends
    used: dict[str, Json] = {}
    derived: dict[str, Json] = {}
    for at, edge in enumerate(trace.edges):
        child, parent = _name("model", edge.child), _name("model", edge.parent)
        derived[f"_:derived{at}"] = {
            "prov:generatedEntity": child,
            "prov:usedEntity": parent,
            "reuselib:role": edge.role,
            "reuselib:tier": edge.tier,
        }
        if _name("run", edge.child) in activities:
            run = _name("run", edge.child)
            used[f"_:used{at}"] = {
                "prov:activity": run,
                "prov:entity": parent,
                "prov:role": edge.role,
            }
    document: dict[str, Json] = {
        "prefix": {"reuselib": _URN},
        "entity": entities,
        "activity": activities,
        "wasGeneratedBy": made,
        "used": used,
        "wasDerivedFrom": derived,
    }
    return json.dumps({key: value for key, value in document.items() if value}, indent=2) + "\n"


def _name(kind: str, node: str) -> str:
    """A qualified name; whatever is no plain letter or digit is written by its number, so that names stay apart."""
    local = re.sub(r"[^0-9A-Za-z-]", lambda match: f"_{ord(match[0]):x}_", node)
    return f"reuselib:{kind}-{local}"


def _entity(node: Node) -> dict[str, Json]:
    values: dict[str, Json] = {
        "prov:label": node.name,
        "prov:type": "model",
        "reuselib:dirHash": node.dir_hash,
        "reuselib:tensorHash1": node.tensor_hash,
        "reuselib:uri": node.uri,
        "reuselib:problem": node.problem,
    }
    return {key: value for key, value in values.items() if value}


def _activity(node: Node) -> dict[str, Json]:
    values: dict[str, Json] = {
        "prov:label": headline(node),
        "prov:type": node.relation,
        "prov:startTime": node.started,
        "prov:endTime": node.finished,
        "reuselib:adapter": node.adapter,
        "reuselib:data": node.data,
    }
    return {key: value for key, value in values.items() if value}
