from __future__ import annotations

import json
import shutil

import pytest

import reuselib
from golden import golden
from reuselib.cli import main
from reuselib.errors import IntegrityError, ReuseError, SourceError
from reuselib.exchange.bom import manifest_of_bom
from reuselib.exchange.export import FORMS, export, unlike_record
from reuselib.exchange.intoto import manifest_of_envelope
from reuselib.lineage import canonical
from reuselib.signing.keys import make_keys
from reuselib.testing.forging import restate


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(golden("int8"), tmp_path / "model")
    return tmp_path / "model"


def test_it_is_public():
    assert reuselib.export is export


@pytest.mark.parametrize("form", FORMS)
def test_the_command_line_writes_what_the_function_gives(form, tmp_path, capsysbinary):
    expected = export(golden("int8"), form)

    assert main(["export", str(golden("int8")), "--to", form]) == 0
    assert capsysbinary.readouterr().out == expected
    output = tmp_path / "out"
    assert main(["export", str(golden("int8")), "--to", form, "--output", str(output)]) == 0
    assert output.read_bytes() == expected


def test_a_file_that_is_there_is_replaced_only_when_told(tmp_path, capsys):
    output = tmp_path / "out"
    output.write_text("mine")
    command = ["export", str(golden("int8")), "--to", "bom", "--output", str(output)]

    assert main(command) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert output.read_bytes() == export(golden("int8"), "bom")


def test_files_that_are_not_those_of_the_record_are_warned_of(folder, capsys):
    assert unlike_record(folder) == ()
    assert main(["export", str(folder), "--to", "card"]) == 0
    assert capsys.readouterr().err == ""

    (folder / "config.json").write_text("{}")
    (folder / "more.bin").write_bytes(b"")

    assert unlike_record(folder) == ("config.json", "more.bin")
    assert main(["export", str(folder), "--to", "card"]) == 0
    shown = capsys.readouterr().err
    assert "not as recorded: config.json" in shown
    assert "not as recorded: more.bin" in shown

    (folder / "link").symlink_to("/etc/passwd")
    assert "link" in unlike_record(folder)[0]


def test_a_file_that_cannot_be_written_is_explained(tmp_path, capsys):
    output = tmp_path / "nowhere" / "out"

    assert main(["export", str(golden("int8")), "--to", "bom", "--output", str(output)]) == 3
    assert "cannot write" in capsys.readouterr().err


def test_each_form_holds_the_manifest(tmp_path):
    exact = (golden("int8") / "lineage/manifest.json").read_bytes()
    make_keys(tmp_path / "own")

    assert manifest_of_bom(export(golden("int8"), "bom")) == exact
    assert export(golden("int8"), "intoto") == exact
    signed = export(golden("int8"), "intoto", key=tmp_path / "own")
    assert manifest_of_envelope(signed, [tmp_path / "own.pub"]) == exact


def test_weights_are_not_read(folder):
    before = export(folder, "bom")
    (folder / "model.safetensors").unlink()

    assert export(folder, "bom") == before


class TestRefusals:
    def test_an_unknown_form(self, folder):
        with pytest.raises(ReuseError, match="one of bom, card, intoto, spdx"):
            export(folder, "pdf")  # type: ignore[arg-type]

    @pytest.mark.parametrize("form", ["bom", "card", "spdx"])
    def test_a_key_that_would_have_no_effect(self, folder, form, tmp_path):
        with pytest.raises(ReuseError, match="cannot be signed"):
            export(folder, form, key=tmp_path / "key")

    def test_a_folder_without_a_record(self, tmp_path):
        with pytest.raises(SourceError):
            export(golden("base"), "bom")
        with pytest.raises(SourceError):
            export(tmp_path / "nothing", "card")

    @pytest.mark.parametrize("name", ["lineage/metrics.json", "lineage/files.sha256"])
    def test_a_part_of_the_record_that_was_changed_or_lost(self, folder, name):
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
        with pytest.raises(IntegrityError) as caught:
            export(folder, "bom")
        assert (caught.value.code, caught.value.path) == ("DIGEST_MISMATCH", name)

        path.unlink()
        with pytest.raises(IntegrityError) as caught:
            export(folder, "bom")
        assert (caught.value.code, caught.value.path) == ("MISSING_FILE", name)

    @pytest.mark.parametrize(
        ("figures", "code"),
        [
            ([], "UNKNOWN_FIELD"),
            ({"more": {}}, "UNKNOWN_FIELD"),
            ({"after": []}, "BAD_MANIFEST"),
            ({"after": {"accuracy": "0.9"}}, "BAD_MANIFEST"),
            ({"after": {"accuracy": True}}, "BAD_MANIFEST"),
            ({"metric": 3}, "BAD_MANIFEST"),
        ],
    )
    def test_figures_that_mean_nothing(self, folder, figures, code):
        (folder / "lineage/metrics.json").write_bytes(canonical.dumps(figures))
        restate(folder)

        for form in ("card", "bom", "spdx"):
            with pytest.raises(IntegrityError) as caught:
                export(folder, form)
            assert caught.value.code == code

    @pytest.mark.parametrize(
        "figures",
        [
            {},
            {"metric": "accuracy"},
            {"metric": "accuracy", "after": {"accuracy": 1}, "before": {}},
            {"intervals": {"after": 3}},
            {"metric": "a", "after": {"a": 1}, "intervals": {"after": {"a": ["x", None]}}},
            {"cost": {"flops": [1]}, "drift": {"kl": {}}, "test": {"rows": {}}},
        ],
    )
    def test_odd_figures_are_told_as_far_as_they_go(self, folder, figures):
        (folder / "lineage/metrics.json").write_bytes(canonical.dumps(figures))
        restate(folder)

        for form in FORMS:
            assert export(folder, form)

    @pytest.mark.parametrize(
        "change",
        [
            lambda external: external.update(task={}),
            lambda external: external.update(task={"text_classification": None}),
            lambda external: external.update(task={"text_classification": {"labels": 3}}),
            lambda external: external.update(recipe={"a": {"b": {}}, "c": [{"d": None}]}),
            lambda external: external.update(recipe={"a|b`\n": 1e300}),
        ],
    )
    def test_odd_settings_are_told_as_they_are(self, folder, change):
        restate(
            folder,
            lambda s: change(s["predicate"]["buildDefinition"]["externalParameters"]),
        )

        for form in FORMS:
            assert export(folder, form)
        json.loads(export(folder, "spdx"))


HOSTILE = "evil\x1b[2K\x1b[1A\x9b1A\u202e ok: accepted"


@pytest.mark.parametrize("form", FORMS)
def test_no_form_holds_what_a_terminal_obeys(folder, form):
    def rename(statement: dict) -> None:
        statement["subject"][0]["name"] = HOSTILE
        built = statement["predicate"]["buildDefinition"]
        built["externalParameters"]["recipe"]["x"] = HOSTILE
        for each in built["resolvedDependencies"]:
            if "uri" in each:
                each["uri"] = f"file:{HOSTILE}"

    restate(folder, rename)

    written = export(folder, form).decode()

    if (
        form == "intoto"
    ):  # the exact bytes of the manifest: JSON that escapes what was there in 1963
        assert "\x1b" not in written
    else:
        assert written.replace("\n", "").isprintable()
