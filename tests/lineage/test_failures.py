"""What must never pass: a table of attacks and accidents, one row a group, each case with its typed code.

The record here is one manifest a model, with those of its ancestors beside it. Where others keep all statements of a
history as lines of one file, what would befall a line befalls a file here: a line stripped is a manifest deleted, a
junk line is a file among the ancestors that is none. Rows of the sidecars are lines as well, and bound by digest.

The rows that take weights of parents, or a model that is opened, are in `evidence/test_loading.py`: a claim that the
weights belie, a parent whose weights changed, a file that changes between check and opening.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_signing import hashing, signing
from safetensors.numpy import save_file

from lineage.folders import draft_of, write_child
from reuselib.lineage import canonical
from reuselib.lineage.chain import MAX_NODES, history
from reuselib.lineage.definition import Definition
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.policy import Policy
from reuselib.lineage.verify import verify
from reuselib.signing.keys import make_keys
from reuselib.signing.sign import sign
from reuselib.testing.forging import part, restate
from signing.authorities import issue

WEIGHTS = "adapter_model.safetensors"
TENSORS = "lineage/tensors.jsonl"


@dataclass
class World:
    """A signed child of a base, whoever wants to harm it, and who looks at it afterwards."""

    tmp: Path
    child: Path
    pinned: Manifest
    policy: Policy | None = None
    """Of the verifier; none by default."""

    @property
    def key(self) -> Path:
        return self.tmp / "key"

    @property
    def ancestor(self) -> Path:
        return self.child / f"lineage/ancestors/{self.pinned.sha256}.json"

    def path(self, name: str) -> Path:
        return self.child / name

    def trusting(self, **demands: Any) -> None:
        self.policy = Policy(
            trusted_keys=(str(self.tmp / "key.pub"),), require=("signed",), **demands
        )

    def write(self, name: str, data: bytes = b"x") -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_bytes(data)

    def sign(self, key: Path | None = None) -> None:
        sign(self.child, key or self.key)

    def edit_bundle(self, change: Callable[[dict[str, Any]], None]) -> None:
        bundle = json.loads(self.path("model.sig").read_bytes())
        change(bundle)
        self.path("model.sig").write_text(json.dumps(bundle))

    def restate(self, change: Callable[[dict[str, Any]], None]) -> None:
        """What a forger can do to the manifest, who keeps every digest consistent."""
        statement = canonical.loads(self.path(MANIFEST).read_bytes())
        assert isinstance(statement, dict)
        change(statement)
        self.path(MANIFEST).write_bytes(canonical.dumps(statement))

    def found(self) -> set[tuple[str, str]]:
        problems = verify(self.child, policy=self.policy).problems
        return {(problem.code, problem.path) for problem in problems}


@pytest.fixture
def world(tmp_path: Path, child: Path, pinned: Manifest) -> World:
    make_keys(tmp_path / "key")
    (child / "README.md").write_text("a card")
    return World(tmp_path, child, pinned)


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# 1: bytes


def swap_shards(world: World) -> None:
    save_file({"a": np.ones(2)}, world.path("a.safetensors"))
    save_file({"b": np.zeros(2)}, world.path("b.safetensors"))
    restate(world.child)
    world.path("a.safetensors").rename(world.path("c"))
    world.path("b.safetensors").rename(world.path("a.safetensors"))
    world.path("c").rename(world.path("b.safetensors"))


def lenient(world: World) -> None:
    world.write("notes.pdf")
    world.policy = Policy(unrecorded="warn")


# 2: what a signer leaves out


def sign_ignoring(world: World, *paths: str) -> None:
    config = signing.Config().use_elliptic_key_signer(private_key=world.key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=paths))
    config.sign(world.child, world.path("model.sig"))
    world.trusting()


def leave_out(name: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.write(name, b"{}")
        restate(world.child)
        sign_ignoring(world, name)
        world.write(name, b'{"changed": 1}')

    return change


def ignore_everything(path: str) -> Callable[[World], None]:
    """A signature by the trusted key that is about nothing."""

    def change(world: World) -> None:
        class Nothing(hashing.Config):
            def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
                whole = super().hash(model_path)
                whole._serialization_type._ignore_paths = [path]
                return whole

        config = signing.Config().use_elliptic_key_signer(private_key=world.key)
        config.set_hashing_config(Nothing()).sign(world.child, world.path("model.sig"))
        world.trusting()

    return change


# 3 to 5: signatures


def signed(change: Callable[[World], object]) -> Callable[[World], None]:
    """A change after signing, before a verifier who trusts the key."""

    def act(world: World) -> None:
        world.sign()
        change(world)
        world.trusting()

    return act


def reencode(bundle: dict[str, Any]) -> None:
    envelope = bundle["dsseEnvelope"]
    value = json.loads(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(json.dumps(value).encode()).decode()


def retype(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["payloadType"] = "application/json"


def unsign(bundle: dict[str, Any]) -> None:
    bundle["dsseEnvelope"]["signatures"] = []


def sign_as_attacker(world: World) -> None:
    make_keys(world.tmp / "attacker")
    world.sign(world.tmp / "attacker")
    world.trusting()


def ship_key(world: World) -> None:
    """The attacker's public key comes with the model, and the verifier is talked into naming it."""
    make_keys(world.tmp / "attacker")
    shutil.copy(world.tmp / "attacker.pub", world.path("README.md"))
    world.sign(world.tmp / "attacker")
    world.policy = Policy(trusted_keys=(str(world.path("README.md")),), require=("signed",))


def replay(world: World) -> None:
    """The signature of another model by the same, trusted, signer."""
    other = world.tmp / "other"
    other.mkdir()
    save_file({"x": np.ones(1)}, other / "model.safetensors")
    write_child(
        other, draft_of(world.pinned, "other"), {world.pinned.sha256: world.pinned.payload()}
    )
    sign(other, world.key)
    shutil.copy(other / "model.sig", world.path("model.sig"))
    world.trusting()


def forge_record(world: World) -> None:
    """Other weights with a consistent record, under the old signature."""
    world.sign()
    world.write("config.json", b'{"r": 1}')
    restate(world.child)
    world.trusting()


def grow_old(world: World) -> None:
    world.sign()
    world.trusting(max_age_days=7)  # It was made in January.


def recall(world: World) -> None:
    world.sign()
    world.trusting(superseded=(Manifest.read(world.child).sha256,))


# 6 and 7: parents


def dependency(statement: dict[str, Any], index: int) -> dict[str, Any]:
    return statement["predicate"]["buildDefinition"]["resolvedDependencies"][index]


def name_another_parent(world: World) -> None:
    """A model of the same name, whose own history is not known."""
    world.restate(lambda s: dependency(s, 0)["digest"].update(dirHash="d" * 64))


def name_other_weights(world: World) -> None:
    world.restate(lambda s: dependency(s, 0)["digest"].update(tensorHash1="d" * 64))


def rewrite_history(world: World) -> None:
    statement = canonical.loads(world.ancestor.read_bytes())
    assert isinstance(statement, dict)
    part(statement, "externalParameters")["recipe"] = {"source": "./elsewhere"}
    world.ancestor.write_bytes(canonical.dumps(statement))


def rename_history(world: World) -> None:
    """The other past under its own digest, which nobody below it names."""
    rewrite_history(world)
    data = world.ancestor.read_bytes()
    world.ancestor.unlink()
    world.write(f"lineage/ancestors/{Manifest.parse(data).sha256}.json", data)


def demand_history(world: World) -> None:
    world.ancestor.unlink()
    world.policy = Policy()


# 8: lines


def lines(world: World, change: Callable[[list[bytes]], list[bytes]]) -> None:
    world.path(TENSORS).write_bytes(
        b"\n".join(change(world.path(TENSORS).read_bytes().splitlines())) + b"\n"
    )


def two_stories(world: World) -> None:
    first = Manifest.read(world.child)
    internal = first.definition.internal
    assert internal
    told = replace(first.definition, seed=8, internal=replace(internal, derivation_id="d" * 64))
    other = replace(first, definition=told)
    model, statement = draft_of(other).definition.dependencies[:2]
    leaf = draft_of(first, "leaf")
    dependencies = (
        *leaf.definition.dependencies,
        replace(model, name="twin", role="merge-source"),
        replace(statement, name="twin.statement", annotations={"of": "twin"}),
    )
    definition = Definition(**{**vars(leaf.definition), "dependencies": dependencies})
    ancestors = {**history(world.child), other.sha256: other.payload()}
    write_child(world.tmp / "leaf", replace(leaf, definition=definition), ancestors)
    world.child = world.tmp / "leaf"


# 10: paths


def twins(one: str, other: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.write(one)
        world.write(other)

    return change


def raw_name(name: bytes) -> Callable[[World], None]:
    def change(world: World) -> None:
        Path(os.fsdecode(os.fsencode(world.child) + b"/" + name)).write_bytes(b"x")

    return change


def open_socket(world: World) -> None:
    previous = Path.cwd()
    os.chdir(world.child)  # The name of a socket must be short.
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("s")
    finally:
        os.chdir(previous)


# 11 and 12: weights


def shard_index(places: dict[str, str]) -> Callable[[World], None]:
    index = json.dumps({"metadata": {}, "weight_map": places}).encode()
    return lambda world: world.write("model.safetensors.index.json", index)


def header(value: Any, data: bytes = b"", length: int | None = None) -> Callable[[World], None]:
    """A safetensors file with this header, beside the child's own."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    return lambda world: world.write("x.safetensors", size + text + data)


def tensor(shape: list[Any], start: int, end: int, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


TWICE = b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'


# 13: JSON


def manifest_is(data: bytes) -> Callable[[World], None]:
    return lambda world: world.write(MANIFEST, data)


# 14: formats


def zip_of(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return data.getvalue()


def wrong_checksum() -> bytes:
    """Of a pickle inside: some readers give up here, others do not look."""
    data = bytearray(zip_of(x_txt=pickle.dumps({"a": 1})))
    at = data.rfind(b"PK\x01\x02")
    data[14:18] = data[at + 16 : at + 20] = b"\0\0\0\0"
    return bytes(data)


def marked_encrypted() -> bytes:
    data = bytearray(zip_of(x_txt=b"x"))
    data[6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


def objects() -> bytes:
    data = io.BytesIO()
    np.save(data, np.array([{}], dtype=object), allow_pickle=True)
    return data.getvalue()


def fields_of_objects() -> bytes:
    data = io.BytesIO()
    np.save(data, np.zeros(1, dtype=[("a", "f4"), ("b", "O")]), allow_pickle=True)
    return data.getvalue()


def sniffed(name: str, data: bytes) -> Callable[[World], None]:
    return lambda world: world.write(name, data)


# 15 and 16: digests, limits


NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def subject(**digest: str) -> Callable[[World], None]:
    return lambda world: world.restate(lambda s: s["subject"][0].update(digest=digest))


def parent_digest(**digest: str) -> Callable[[World], None]:
    return lambda world: world.restate(lambda s: dependency(s, 0).update(digest=digest))


def rows_digest(**digest: str) -> Callable[[World], None]:
    return lambda world: world.restate(lambda s: dependency(s, 2).update(digest=digest))


def generations(number: int) -> Callable[[World], None]:
    """A line of so many ancestors."""

    def change(world: World) -> None:
        ancestors = {world.pinned.sha256: world.pinned.payload()}
        manifest = Manifest.read(world.child)
        for generation in range(number):
            ancestors[manifest.sha256] = manifest.payload()
            manifest = replace(manifest, definition=draft_of(manifest, f"x{generation}").definition)
        world.write(MANIFEST, manifest.payload())
        for digest, data in ancestors.items():
            world.write(f"lineage/ancestors/{digest}.json", data)

    return change


def crowd(world: World) -> None:
    def change(statement: dict[str, Any]) -> None:
        definition = statement["predicate"]["buildDefinition"]
        definition["resolvedDependencies"] += [
            {"name": f"c{i}", "digest": {"sha256": "a" * 64}, "annotations": {"role": "code"}}
            for i in range(10_000)
        ]

    world.restate(change)


def swell(world: World) -> None:
    world.restate(lambda s: part(s, "internalParameters")["facts"].update(x="x" * 2**24))


# 18: certificates


def certified(case: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        root = issue(world.tmp / "ca", "root", is_authority=True)
        days = (-5, -1) if case == "expired" else (-5, 5)
        own = issue(world.tmp / "ca", "builder", root, days=days, email="builder@example.org")
        sign(world.child, own.key, [own.certificate])
        wanted = {"builder": "CN=another builder", "identity": "other@example.org"}.get(case)
        world.policy = Policy(
            trusted_roots=(str(root.certificate),),
            identities=(wanted,) if wanted else (),
            require=("signed",),
        )

    return change


Case = tuple[str, Callable[[World], object], str, str]
TABLE: tuple[Case, ...] = (
    ("one weight byte flipped", lambda w: flip(w.path(WEIGHTS)), "DIGEST_MISMATCH", WEIGHTS),
    ("config edited", lambda w: w.write("config.json", b"{}"), "DIGEST_MISMATCH", "config.json"),
    ("file renamed", lambda w: w.path("config.json").rename(w.path("conf.json")), "DIGEST_MISMATCH", "conf.json"),
    ("names of two shards swapped", swap_shards, "DIGEST_MISMATCH", "a.safetensors"),
    ("loadable file added", lambda w: w.write("added.json", b"{}"), "UNSIGNED_LOADABLE", "added.json"),
    ("other file added", lambda w: w.write("notes.pdf"), "UNSIGNED_FILE", "notes.pdf"),
    ("other file added, warned of", lenient, "UNSIGNED_FILE", "notes.pdf"),
    ("file deleted", lambda w: w.path("config.json").unlink(), "MISSING_FILE", "config.json"),
    ("ignored config changed", leave_out("extra.json"), "UNSIGNED_LOADABLE", "extra.json"),
    ("ignored template changed", leave_out("chat.jinja"), "UNSIGNED_LOADABLE", "chat.jinja"),
    ("ignored tokenizer changed", leave_out("vocab.txt"), "UNSIGNED_LOADABLE", "vocab.txt"),
    ("ignored weights", lambda w: sign_ignoring(w, WEIGHTS), "UNSIGNED_LOADABLE", WEIGHTS),
    ("ignored record", lambda w: sign_ignoring(w, "lineage"), "UNSIGNED_LOADABLE", MANIFEST),
    ("ignored code", leave_out("model.py"), "UNSIGNED_LOADABLE", "model.py"),
    *((f"ignored {path!r}", ignore_everything(path), "BAD_IGNORE", "model.sig") for path in (".", "..", "../x", "", "/")),
    ("manifest field edited", signed(lambda w: w.restate(lambda s: part(s, "externalParameters").update(seed=8))), "BAD_SIGNATURE", MANIFEST),
    ("payload encoded anew", signed(lambda w: w.edit_bundle(reencode)), "BAD_SIGNATURE", "model.sig"),
    ("other payload type", signed(lambda w: w.edit_bundle(retype)), "WRONG_TYPE", "model.sig"),
    ("signed with another key", sign_as_attacker, "UNTRUSTED_SIGNER", "model.sig"),
    ("key in the folder", ship_key, "UNTRUSTED_SIGNER", "model.sig"),
    ("empty list of signatures", signed(lambda w: w.edit_bundle(unsign)), "UNSIGNED", "model.sig"),
    ("no signature", lambda w: w.trusting(), "UNSIGNED", "model.sig"),
    ("signature of another model", replay, "SUBJECT_MISMATCH", "model.sig"),
    ("record forged under the old signature", forge_record, "SUBJECT_MISMATCH", "model.sig"),
    ("too old", grow_old, "STALE", MANIFEST),
    ("superseded", recall, "STALE", MANIFEST),
    ("parent of the same name", name_another_parent, "PARENT_MISMATCH", ""),
    ("parent's weights", name_other_weights, "PARENT_MISMATCH", ""),
    ("parent's history rewritten", rewrite_history, "PARENT_STATEMENT_MISMATCH", ""),
    ("parent's history rewritten and renamed", rename_history, "PARENT_STATEMENT_MISMATCH", ""),
    ("parent's statement absent", lambda w: w.ancestor.unlink(), "MISSING_PARENT", ""),
    ("parent's statement absent, but demanded", demand_history, "MISSING_PARENT", "lineage/ancestors"),
    ("manifest deleted", lambda w: w.path(MANIFEST).unlink(), "MISSING_LINEAGE", MANIFEST),
    ("row deleted", lambda w: lines(w, lambda rows: rows[1:]), "DIGEST_MISMATCH", TENSORS),
    ("rows in another order", lambda w: lines(w, lambda rows: rows[::-1]), "DIGEST_MISMATCH", TENSORS),
    ("junk among the rows", lambda w: lines(w, lambda rows: [*rows, b"x"]), "DIGEST_MISMATCH", TENSORS),
    ("junk among the ancestors", lambda w: w.write("lineage/ancestors/x.json"), "PARENT_STATEMENT_MISMATCH", "lineage/ancestors/x.json"),
    ("two stories about one model", two_stories, "CONFLICT", ""),
    ("link into the folder", lambda w: w.path("x").symlink_to("config.json"), "UNSAFE_PATH", "x"),
    ("link out of it", lambda w: w.path("x").symlink_to("/etc/passwd"), "UNSAFE_PATH", "x"),
    ("link to itself", lambda w: w.path("x").symlink_to("x"), "UNSAFE_PATH", "x"),
    ("folder linked in a circle", lambda w: w.path("x").symlink_to(w.child), "UNSAFE_PATH", "x"),
    ("hard link", lambda w: os.link(w.path(WEIGHTS), w.tmp / "outside"), "UNSAFE_PATH", WEIGHTS),
    ("pipe", lambda w: os.mkfifo(w.path("x")), "UNSAFE_PATH", "x"),
    ("socket", open_socket, "UNSAFE_PATH", "s"),
    ("twins by case", twins("a.txt", "A.txt"), "UNSAFE_PATH", "a.txt"),
    ("twins by composition", twins("é.txt", "e\u0301.txt"), "UNSAFE_PATH", "é.txt"),
    *((f"name {name!r}", raw_name(name), "UNSAFE_PATH", "") for name in (b"C:x", b"a\\b", b"x.", b"x ", b"a\nb", b"\xff", b"...")),
    ("truncated shard", lambda w: os.truncate(w.path(WEIGHTS), 150), "TRUNCATED", WEIGHTS),
    ("index that leads outside", shard_index({"lora_A": "../x.safetensors"}), "UNSAFE_PATH", "model.safetensors.index.json"),
    ("index to a tensor that is not there", shard_index({"x": WEIGHTS}), "TRUNCATED", "model.safetensors.index.json"),
    ("tensor in two shards", lambda w: shutil.copy(w.path(WEIGHTS), w.path("x.safetensors")), "AMBIGUOUS_TENSOR", "x.safetensors"),
    ("header of more than 100 MB", header(b"{}", b"\0" * 64, 100_000_001), "BAD_SAFETENSORS", "x.safetensors"),
    ("header beyond the file", header({}, b"", 2**63), "BAD_SAFETENSORS", "x.safetensors"),
    ("tensor named twice", header(TWICE), "BAD_SAFETENSORS", "x.safetensors"),
    ("metadata twice", header(b'{"__metadata__":{},"__metadata__":{}}'), "BAD_SAFETENSORS", "x.safetensors"),
    ("metadata as a tensor", header({"__metadata__": tensor([1], 0, 1)}, b"x"), "BAD_SAFETENSORS", "x.safetensors"),
    ("overlap", header({"x": tensor([2], 0, 2), "y": tensor([2], 1, 3)}, b"xxx"), "BAD_SAFETENSORS", "x.safetensors"),
    ("hole", header({"x": tensor([1], 0, 1), "y": tensor([1], 2, 3)}, b"xxx"), "BAD_SAFETENSORS", "x.safetensors"),
    ("data behind the last tensor", header({"x": tensor([1], 0, 1)}, b"xx"), "BAD_SAFETENSORS", "x.safetensors"),
    ("shape that overflows", header({"x": tensor([2**32, 2**32], 0, 0)}), "BAD_SAFETENSORS", "x.safetensors"),
    ("shape of a million sizes", header({"x": tensor([2**53 - 1] * 300_000, 0, 1)}, b"x"), "BAD_SAFETENSORS", "x.safetensors"),
    ("empty tensor inside another", header({"x": tensor([4], 0, 4), "y": tensor([0], 2, 2)}, b"xxxx"), "BAD_SAFETENSORS", "x.safetensors"),
    ("sizes that are none", header({"x": tensor([True], 0, 1)}, b"x"), "BAD_SAFETENSORS", "x.safetensors"),
    ("JSON: key twice", manifest_is(b'{"a":1,"a":1}'), "BAD_JSON", MANIFEST),
    ("JSON: nested", manifest_is(b"[" * 100_000), "BAD_JSON", MANIFEST),
    ("JSON: a million digits", manifest_is(b'{"a":' + b"9" * 10**6 + b"}"), "BAD_JSON", MANIFEST),
    ("JSON: NaN", manifest_is(b'{"a":NaN}'), "BAD_JSON", MANIFEST),
    ("JSON: lone surrogate", manifest_is(b'{"a":"\\ud800"}'), "BAD_JSON", MANIFEST),
    ("JSON: UTF-16", manifest_is('{"a":1}'.encode("utf-16")), "BAD_JSON", MANIFEST),
    ("JSON: byte order mark", manifest_is(b"\xef\xbb\xbf{}"), "BAD_JSON", MANIFEST),
    ("zip bomb", sniffed("x.txt", zip_of(x_txt=b"\0" * 2**26)), "UNSAFE_FORMAT", "x.txt"),
    ("zip in a zip", sniffed("x.txt", zip_of(y_txt=zip_of(x_txt=b"x"))), "UNSAFE_FORMAT", "x.txt"),
    ("pickle in a zip with a wrong checksum", sniffed("x.json", wrong_checksum()), "UNSAFE_FORMAT", "x.json"),
    ("zip marked as encrypted", sniffed("x.json", marked_encrypted()), "UNSAFE_FORMAT", "x.json"),
    *((f"pickle of protocol {number} in {name}", sniffed(name, pickle.dumps(Payload(), number)), "UNSAFE_FORMAT", name) for number in range(6) for name in ("x.bin", "x.txt", "x.npy", "lineage/x.json", "README.md")),
    ("array of objects", sniffed("x.npy", objects()), "UNSAFE_FORMAT", "x.npy"),
    ("array with a field of objects", sniffed("x.txt", fields_of_objects()), "UNSAFE_FORMAT", "x.txt"),
    ("7z", sniffed("x.txt", b"7z\xbc\xaf\x27\x1crest"), "UNSAFE_FORMAT", "x.txt"),
    ("program", sniffed("x.txt", b"\x7fELF" + b"\0" * 64), "UNSAFE_FORMAT", "x.txt"),
    ("subject of nothing", subject(dirHash=NOTHING, tensorHash1="a" * 64), "WEAK_DIGEST", MANIFEST),
    ("subject of zeros", subject(dirHash="a" * 64, tensorHash1="0" * 64), "WEAK_DIGEST", MANIFEST),
    ("parent of nothing", parent_digest(dirHash=NOTHING, tensorHash1="a" * 64), "WEAK_DIGEST", MANIFEST),
    ("parent of zeros", parent_digest(dirHash="0" * 64, tensorHash1="a" * 64), "WEAK_DIGEST", MANIFEST),
    ("rows of nothing", rows_digest(rowsHash1=NOTHING), "WEAK_DIGEST", MANIFEST),
    ("rows by md5", rows_digest(md5="a" * 32), "WEAK_DIGEST", MANIFEST),
    ("rows by sha1", rows_digest(sha1="a" * 40), "WEAK_DIGEST", MANIFEST),
    ("100 generations", generations(100), "LIMIT", "lineage/ancestors"),
    ("10,000 dependencies", crowd, "LIMIT", MANIFEST),
    ("huge content", swell, "LIMIT", MANIFEST),
    ("expired certificate", certified("expired"), "UNTRUSTED_SIGNER", "model.sig"),
    ("certificate of another builder", certified("builder"), "UNTRUSTED_SIGNER", "model.sig"),
    ("certificate of another identity", certified("identity"), "UNTRUSTED_SIGNER", "model.sig"),
)  # fmt: skip


TOLERATED = (
    "other file added, warned of",
    "hard link",
    "parent's statement absent",
)
"""What is told, and yet passes: the policy says so, package managers make such links, or nobody demanded a history."""


def test_without_an_attack_nothing_is_found(world):
    world.sign()
    world.trusting()
    report = verify(world.child, policy=world.policy)

    assert report.ok
    assert not report.warnings


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case[0])
def test_failure_is_found(world, case):
    name, change, code, path = case
    change(world)

    report = verify(world.child, policy=world.policy)
    found = [(each.code, each.path) for each in (*report.problems, *report.warnings)]
    told = found + [(line.partition(":")[0], "") for line in report.unchecked]

    assert any(code == each and path in ("", at) for each, at in told), found
    assert report.ok == (name in TOLERATED)
    # Nothing in the folder was run.
    assert not (world.tmp / "marker").exists()
    assert not Path("marker").exists()


def test_ancestors_in_whatever_order_are_the_same(world):
    """As files they have none."""
    data = world.ancestor.read_bytes()
    world.ancestor.unlink()
    world.ancestor.write_bytes(data)

    assert verify(world.child).ok


# Bounded, whatever is claimed.


def test_graph_of_too_many_generations_is_refused_without_walking_it(world):
    folder = world.path("lineage/ancestors")
    for number in range(MAX_NODES):  # one of its own is there already
        (folder / f"{number:064x}.json").write_bytes(b"{}")

    assert ("LIMIT", "lineage/ancestors") in world.found()


def test_ancestors_of_many_bytes_are_not_all_read(world):
    for number in range(6):
        path = world.path(f"lineage/ancestors/{number:064x}.json")
        with path.open("wb") as file:
            file.truncate(15 * 2**20)

    assert ("LIMIT", "lineage/ancestors") in world.found()


def test_folders_in_place_of_files_are_no_traceback(world):
    world.ancestor.unlink()
    names = ("model.sig", "README.md", "x.safetensors", "model.safetensors.index.json")
    for name in (*names, f"lineage/ancestors/{world.ancestor.name}", "lineage/metrics.json.d"):
        world.path(name).unlink(missing_ok=True)
        world.write(f"{name}/inside.pdf")
    world.trusting()

    found = world.found()

    assert ("UNSIGNED_FILE", "model.sig/inside.pdf") in found
    assert {code for code, _ in found} >= {"UNSIGNED_FILE", "UNREADABLE", "MISSING_PARENT"}


def test_made_in_the_future_is_stale(world):
    def postdate(statement: dict[str, Any]) -> None:
        later = datetime.now(UTC) + timedelta(days=30)
        metadata = statement["predicate"]["runDetails"]["metadata"]
        metadata["finishedOn"] = f"{later:%Y-%m-%dT%H:%M:%SZ}"

    world.restate(postdate)
    world.policy = Policy(max_age_days=365)

    assert ("STALE", MANIFEST) in world.found()


HUGE = """
import resource, sys
from pathlib import Path
from reuselib.lineage.verify import verify
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
codes = {problem.code for problem in verify(folder).problems}
print(*codes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("name", "length", "code"),
    [
        ("x.safetensors", 200_000_000, "BAD_SAFETENSORS"),
        ("model.safetensors.index.json", 0, "LIMIT"),
        ("lineage/manifest.json", 0, "LIMIT"),
        ("model.sig", 0, "UNSIGNED_FILE"),
    ],
)
def test_200_megabytes_take_no_memory(world, name, length, code):
    """A header, an index, a manifest of such a size; the file itself is sparse."""
    import subprocess
    import sys

    with world.path(name).open("wb") as file:
        file.write(struct.pack("<Q", length) if length else b"{")
        file.truncate(220_000_000)
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(world.child)], capture_output=True, text=True, check=True
    )
    *codes, grown = done.stdout.split()

    assert code in codes or name == "model.sig"  # Without a policy a signature is not read.
    assert int(grown) < 120


def test_huge_signature_takes_no_memory(world):
    world.trusting()
    with world.path("model.sig").open("wb") as file:
        file.truncate(2**33)

    assert ("LIMIT", "model.sig") in world.found()
