"""Every reader of strangers' bytes, with sound inputs to begin from."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz import bombs
from fuzz.mutations import damaged_bytes, damaged_value, written
from golden import golden
from lineage.folders import draft_of
from reuselib.errors import ReuseError
from reuselib.exchange.bom import bom, manifest_of_bom
from reuselib.exchange.dossier import Dossier
from reuselib.lineage import canonical, chain, rows, trail
from reuselib.lineage.digest import checksums, parse_checksums
from reuselib.lineage.headers import headers
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.policy import Policy
from reuselib.recipe import Recipe
from reuselib.signing.bundle import MEDIA_TYPE, PAYLOAD_TYPE, read_bundle
from reuselib.signing.dsse import read_envelope
from reuselib.signing.statement import PREDICATE_TYPE, STATEMENT_TYPE
from reuselib.testing.histories import base, child
from reuselib.values.front_matter import CARD, read_front_matter

RECIPES = Path(__file__).parents[2] / "recipes"
DIGEST = "ab" * 32

Damage = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    seeds: tuple[bytes, ...]
    """Sound inputs, each of which it accepts."""
    damage: Damage
    """Makes another input of one."""
    read: Callable[[bytes, Path], object]
    """Gives the bytes to the reader; a folder of its own may be used for files."""
    share: int = 1
    """How many inputs it gets, beside the others."""
    bombs: Mapping[str, Callable[[], bytes]] = field(default_factory=lambda: bombs.JSON)
    """Large inputs that it is given besides."""

    def input(self, seed: int, number: int) -> bytes:
        """The same for the same numbers."""
        draw = Random(f"{seed}/{self.name}/{number}")
        return self.damage(draw, draw.choice(self.seeds))


def targets() -> tuple[Target, ...]:
    """All of them, those first that an issue of trust hangs on."""
    return (
        Target("manifest", tuple(_manifests()), _json, lambda data, _: Manifest.parse(data), 6),
        Target("history", tuple(_manifests()), _json, _read_history),
        Target("safetensors", tuple(_weights()), _safetensors, _read_weights, 6),
        Target("index", (_index(),), _json, _read_index),
        Target("recipe", tuple(_recipes()), damaged_bytes, _read_recipe, 4, bombs.YAML),
        Target("recipe values", tuple(_recipe_values()), _json, _read_recipe, 2),
        Target("policy", (_POLICY,), damaged_bytes, _read_policy, bombs=bombs.YAML),
        Target("card", (_CARD,), damaged_bytes, _read_card, bombs=bombs.YAML),
        Target("trail", (_trail(),), _lines, lambda data, _: trail.parse_trails(data)),
        Target("tensor rows", (_rows(),), _lines, lambda data, _: rows.parse_rows(data)),
        Target(
            "checksums",
            (checksums({"a.json": DIGEST, "b/c": DIGEST}),),
            damaged_bytes,
            lambda data, _: parse_checksums(data),
        ),
        Target("signature", (_bundle(),), _signature, lambda data, _: read_bundle(data), 2),
        Target("bill", (_bill(),), _bill_damage, lambda data, _: manifest_of_bom(data)),
        Target("envelope", (_envelope(),), _signature, lambda data, _: read_envelope(data)),
    )


# How inputs are damaged.


def _json(draw: Random, data: bytes) -> bytes:
    if draw.random() < 0.25:
        return damaged_bytes(draw, data)
    return written(draw, damaged_value(draw, json.loads(data)), plain=canonical.dumps)


def _lines(draw: Random, data: bytes) -> bytes:
    if draw.random() < 0.25:
        return damaged_bytes(draw, data)
    lines = data.splitlines()
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(lines))
        lines[at] = written(draw, damaged_value(draw, json.loads(lines[at])), plain=canonical.dumps)
        if draw.random() < 0.2:
            draw.shuffle(lines)
        if not lines[at].startswith(b"{"):
            break
    return b"\n".join(lines) + b"\n"


def _safetensors(draw: Random, data: bytes) -> bytes:
    if draw.random() < 0.2:
        return damaged_bytes(draw, data)
    size = int.from_bytes(data[:8], "little")
    text = written(draw, damaged_value(draw, json.loads(data[8 : 8 + size])))
    if draw.random() < 0.2:
        text = damaged_bytes(draw, text)
    text += b" " * (-len(text) % 8)
    claimed = len(text)
    if draw.random() < 0.1:
        claimed = draw.choice((0, 1, claimed - 1, claimed + 1, 2**31, 2**63, 2**64 - 1, 99_999_999))
    return claimed.to_bytes(8, "little") + text + data[8 + size :]


def _signature(draw: Random, data: bytes) -> bytes:
    """Half of the time what the envelope holds, in an envelope that stays sound."""
    if draw.random() < 0.5:
        return _json(draw, data)
    bundle = json.loads(data)
    envelope = bundle.get("dsseEnvelope", bundle)
    payload = base64.b64decode(envelope["payload"])
    envelope["payload"] = base64.b64encode(_json(draw, payload)).decode()
    return json.dumps(bundle).encode()


def _bill_damage(draw: Random, data: bytes) -> bytes:
    """A third of the time the manifest that the bill holds, under a digest that fits it."""
    if draw.random() < 0.67:
        return _json(draw, data)
    bill = json.loads(data)
    inside = bill["formulation"][0]["workflows"][0]["outputs"][-1]["data"]
    payload = _json(draw, base64.b64decode(inside["content"]))
    inside["content"] = base64.b64encode(payload).decode()
    link = bill["metadata"]["component"]["externalReferences"][0]
    link["hashes"][0]["content"] = hashlib.sha256(payload).hexdigest()
    return json.dumps(bill).encode()


# How they are read.


def _read_history(data: bytes, _: Path) -> object:
    """A stranger's manifest as the ancestor of a sound one that names it by its digest."""
    named = hashlib.sha256(data).hexdigest()
    statement = json.loads(child("m", [("base", base())]).manifest.payload())
    model, record, *_ = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    record["digest"]["sha256"] = named
    with suppress(ReuseError, LookupError, TypeError):
        own = canonical.loads(data)["subject"][0]["digest"]  # type: ignore[index,call-overload]
        model["digest"] = {key: own[key] for key in ("dirHash", "tensorHash1")}
    return chain.walk(Manifest.parse(canonical.dumps(statement)), {named: data})


def _read_weights(data: bytes, folder: Path) -> object:
    if data[:1] in b"[{x\n":  # a bomb, as the header of a file that tells its length truly
        data = len(data).to_bytes(8, "little") + data
    (folder / "model.safetensors").write_bytes(data)
    return headers(folder)


def _read_index(data: bytes, folder: Path) -> object:
    (folder / "model.safetensors").write_bytes(next(_weights()))
    path = folder / "model.safetensors.index.json"
    path.write_bytes(data)
    try:
        return headers(folder)
    finally:
        path.unlink()


def _read_recipe(data: bytes, folder: Path) -> object:
    (folder / "recipe.yaml").write_bytes(data)
    return Recipe.read(folder / "recipe.yaml")


def _read_card(data: bytes, folder: Path) -> object:
    (folder / CARD).write_bytes(data)
    return read_front_matter(folder)


def _read_policy(data: bytes, folder: Path) -> object:
    for name in ("a.pub", "ca.pem"):
        (folder / name).touch()
    (folder / "policy.yaml").write_bytes(data)
    return Policy.read(folder / "policy.yaml")


# Sound inputs.


def _manifests() -> Iterator[bytes]:
    root = base()
    yield root.manifest.payload()
    one = child("one", [("base", root)], recipe={"r": 8, "fit": {"learning_rate": 5e-4}})
    yield one.manifest.payload()
    yield child(
        "two", [("base", one), ("teacher", root)], adapter="distill", relation="distill"
    ).manifest.payload()
    draft = draft_of(root.manifest)
    yield Manifest(
        "child",
        root.manifest.digests,
        draft.definition,
        draft.details,
        {"license": "apache-2.0"},
    ).payload()


def _weights() -> Iterator[bytes]:
    for layout in (
        {"a": ("F32", [2, 3], 24), "é": ("BF16", [4], 8), "zero": ("I8", [0], 0)},
        {"packed": ("F4", [16], 8), "bits": ("BOOL", [1, 8], 8), "scalar": ("F64", [], 8)},
    ):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (dtype, shape, size) in layout.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        yield len(text).to_bytes(8, "little") + text + bytes(end)


def _index() -> bytes:
    places = dict.fromkeys(("a", "é", "zero"), "model.safetensors")
    return canonical.dumps({"metadata": {"total_size": 32}, "weight_map": places})


def _recipes() -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted(RECIPES.rglob("*.yaml")))


def _recipe_values() -> Iterator[bytes]:
    """JSON is YAML, so values that were damaged as such reach the reader."""
    for data in _recipes():
        yield json.dumps(Recipe.parse(data.decode()).to_dict()).encode()


def _trail() -> bytes:
    entries = tuple(
        trail.Entry(step=step, state=DIGEST, loss=0.5, rows=DIGEST) for step in (1, 10, 20, 25)
    )
    one = trail.Trail(every=10, num_steps=25, num_rows=64, tensors=("a", "b"), entries=entries)
    return trail.dump_trails([one, one])


def _rows() -> bytes:
    return rows.dump_rows(
        [rows.TensorRow(name, "F32", (2, 3), DIGEST, "model.safetensors") for name in "abé"]
    )


def _statement() -> bytes:
    resources = [
        {"name": name, "algorithm": "sha256", "digest": DIGEST} for name in ("a.json", "b/c.bin")
    ]
    root = hashlib.sha256(bytes.fromhex(DIGEST) * 2).hexdigest()
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [".git"],
    }
    return canonical.dumps(
        {
            "_type": STATEMENT_TYPE,
            "predicateType": PREDICATE_TYPE,
            "subject": [{"name": "m", "digest": {"sha256": root}}],
            "predicate": {"serialization": serialization, "resources": resources},
        }
    )


def _envelope() -> bytes:
    signature = {"keyid": "", "sig": base64.b64encode(b"signature").decode()}
    payload = base64.b64encode(_statement()).decode()
    return canonical.dumps(
        {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    )


def _bill() -> bytes:
    return bom(Dossier.read(golden("int8")))


def _bundle() -> bytes:
    return canonical.dumps(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": DIGEST}, "tlogEntries": []},
            "dsseEnvelope": json.loads(_envelope()),
        }
    )


_POLICY = b"""\
# what we demand
trusted_keys: [a.pub]
trusted_roots: [ca.pem]
identities: ["somebody@example.org"]
require: [signed, recorded]
unrecorded: warn
max_age_days: 365
superseded: ["%b"]
licences: [MIT, Apache-2.0]
min_completeness: 0.75
claims: hold
allow: [TEMPLATE_CODE]
""" % DIGEST.encode()

_CARD = b"""\
---
base_model: [org/a, org/b]
base_model_relation: merge
license: apache-2.0
language: [en, "no"]
tags: [x]
model-index:
  - name: m
    results:
      - task: {type: text-classification}
        metrics: [{type: accuracy, value: 0.9}]
---
# m
"""
