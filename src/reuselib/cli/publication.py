"""The verbs for who hands a model to others: keys, signatures, and the record in forms that other tools read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from reuselib.cli.application import app
from reuselib.cli.options import Folder


@app.command()
def keygen(
    private: Annotated[
        Path,
        typer.Argument(
            metavar="KEY", help="Where the private key goes; the public one goes to KEY.pub."
        ),
    ],
) -> None:
    """Make a pair of keys to sign with and to verify with."""
    from reuselib.signing.keys import make_keys

    public = make_keys(private)
    typer.echo(
        f"private key {private}: keep it to yourself\npublic key  {public}: hand it to who verifies"
    )


@app.command()
def sign(
    folder: Folder,
    *,
    key: Annotated[Path, typer.Option(help="PEM file of your private key.")],
    certificate: Annotated[
        list[Path] | None,
        typer.Option(
            help="PEM file of the key's certificate, then those of its issuers; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Sign every file of a model folder, the record included, as OpenSSF Model Signing: writes model.sig."""
    from reuselib.signing.sign import sign

    signature = sign(folder, key, certificates=certificate or ())
    typer.echo(f"{folder}: signed by {signature.signer}; {signature.num_files} files in model.sig")


@app.command()
def export(
    folder: Folder,
    *,
    to: Annotated[
        Literal["bom", "card", "intoto", "spdx"],
        typer.Option(
            help="CycloneDX bill of materials, Hugging Face model card, in-toto statement, or SPDX.",
        ),
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private key that signs the in-toto statement, else it is bare.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to, instead of standard output.", show_default=False)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there already.")
    ] = False,
) -> None:
    """Write what the record says in a form that other tools read; warns if the files are not those of the record."""
    from reuselib.errors import StoreError
    from reuselib.exchange.export import export, unlike_record
    from reuselib.lineage.disk import writing
    from reuselib.values.visible import visible

    if output is not None and output.exists() and not overwrite:
        raise StoreError(f"{output} exists", fix="choose another file, or add --overwrite")
    data = export(folder, to, key=key)
    for each in unlike_record(folder)[:5]:
        typer.echo(f"warning: not as recorded: {visible(each)}; see `reuselib verify`", err=True)
    if output is None:
        # bytes, so that what is signed or hashed is the same whatever the terminal's encoding
        sys.stdout.buffer.write(data)
        return
    with writing(output, otherwise="choose another file"):
        output.write_bytes(data)
