"""The command that conformance suites call, on any folder, and the official package on the same folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_signing import hashing, signing, verifying

from signing.adapter import main
from signing.authorities import issue

NAMES = ("a/x", "a-b/x", "a.txt", "é/ü.txt", "Z", "with space", ".hidden/x", "empty")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "empty" else name)
    return tmp_path / "model"


def typed(command: str, folder: Path, **options: object) -> int:
    words = [command, "--model-path", str(folder)]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return main(words)


def test_key_there_and_back(folder, key, public, tmp_path):
    bundle = tmp_path / "bundle.sig"
    assert typed("sign-model", folder, method="key", output_bundle=bundle, private_key=key) == 0

    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, bundle)
    asked = {"method": "key", "bundle": bundle, "public_key": public}
    assert typed("verify-model", folder, **asked) == 0
    (folder / "a.txt").write_text("x")
    assert typed("verify-model", folder, **asked) == 5


def test_certificate_there_and_back(folder, tmp_path):
    root = issue(tmp_path / "ca", "root", is_authority=True)
    own = issue(tmp_path / "ca", "own", root)
    bundle = tmp_path / "bundle.sig"
    given = {"private_key": own.key, "signing_cert": own.certificate}
    assert typed("sign-model", folder, method="certificate", output_bundle=bundle, **given) == 0

    asked = {"method": "certificate", "bundle": bundle, "cert_chain": [root.certificate]}
    assert typed("verify-model", folder, **asked) == 0
    other = issue(tmp_path / "ca", "other", is_authority=True)
    assert typed("verify-model", folder, **{**asked, "cert_chain": [other.certificate]}) == 5


@pytest.mark.parametrize("inside", [False, True])
def test_what_the_official_package_signs(folder, key, public, tmp_path, inside):
    bundle = (folder if inside else tmp_path) / "bundle.sig"
    config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["Z", "bundle.sig"]))
    config.sign(folder, bundle)

    asked = {"method": "key", "bundle": bundle, "public_key": public}
    assert typed("verify-model", folder, **asked) == 0
    (folder / "Z").write_text("ignored by the signer, and nothing that is loaded")
    assert typed("verify-model", folder, **asked) == 0
    (folder / "new").write_text("x")
    assert typed("verify-model", folder, **asked) == 5


def test_nothing_to_sign(tmp_path, key):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "bundle.sig"

    assert typed("sign-model", tmp_path / "empty", method="key", output_bundle=out, private_key=key)
    assert not out.exists()
