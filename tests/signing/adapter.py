"""What conformance suites for OpenSSF Model Signing call: signs and verifies any folder, with or without a record.

    python tests/signing/adapter.py sign-model --method key --model-path DIR --output-bundle FILE --private-key PEM
    python tests/signing/adapter.py verify-model --method key --model-path DIR --bundle FILE --public-key PEM

Exit code 0 if it worked, and holds; another otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reuselib.errors import IntegrityError, ReuseError
from reuselib.lineage.digest import all_files
from reuselib.lineage.hashing import Span, sha256_all
from reuselib.lineage.policy import Policy
from reuselib.signing.check import check_bundle
from reuselib.signing.official import signed

GIT = (".git", ".gitattributes", ".github", ".gitignore")
"""What the format's default leaves out."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("sign-model", "verify-model"))
    parser.add_argument("--method", choices=("key", "certificate"), required=True)
    parser.add_argument("--model-path", type=Path, required=True)
    for name in ("output-bundle", "bundle", "private-key", "public-key", "signing-cert"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("cert-chain", "ignore-paths"):
        parser.add_argument(f"--{name}", type=Path, nargs="*", action="extend", default=[])
    parser.add_argument("--ignore-unsigned-files", action="store_true")
    given = parser.parse_args(arguments)
    try:
        files = digests(given)
        (sign if given.command == "sign-model" else verify)(given, files)
    except ReuseError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def digests(given: argparse.Namespace) -> dict[str, str]:
    folder = given.model_path.resolve()
    left_out = [folder / name for name in GIT]
    left_out += [
        path.resolve() for path in (*given.ignore_paths, given.output_bundle, given.bundle) if path
    ]
    names = [
        name
        for name in all_files(folder)
        if not any((folder / name).is_relative_to(path) for path in left_out)
    ]
    return dict(zip(names, sha256_all([Span(folder / name) for name in names]), strict=True))


def sign(given: argparse.Namespace, files: dict[str, str]) -> None:
    if not files:
        raise ValueError("there is nothing to sign")
    chain = [given.signing_cert, *given.cert_chain] if given.method == "certificate" else []
    signed(
        given.model_path,
        files,
        key=given.private_key,
        certificates=chain,
        target=given.output_bundle,
    )


def verify(given: argparse.Namespace, files: dict[str, str]) -> None:
    trusted = {"trusted_keys": (str(given.public_key),)}
    if given.method == "certificate":
        trusted = {"trusted_roots": tuple(map(str, given.cert_chain))}
    found = check_bundle(given.bundle.read_bytes(), given.model_path, Policy(**trusted), files)
    for problem in found.problems:
        if not (given.ignore_unsigned_files and problem.code.startswith("UNSIGNED")):
            raise IntegrityError(problem.code, problem.what)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
