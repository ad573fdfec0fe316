from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reuselib.errors import SourceError
from reuselib.scanning.hazards import CODES, SEVERITIES, Hazard
from reuselib.scanning.scan import scan
from reuselib.testing.tiny import tiny_bert
from scanning.payloads import zipped


def codes(folder) -> set[str]:
    return {hazard.code for hazard in scan(folder).hazards}


def test_an_honest_model_is_clean(tmp_path):
    found = scan(tiny_bert(tmp_path / "model", head=True))

    assert found.ok
    assert found.hazards == ()
    assert found.formats == {"json": 3, "safetensors": 1}
    assert found.unchecked


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("modeling.py", b"x = 1\n", "CODE"),
        ("hook.pth", b"import os\n", "CODE"),
        ("notes.txt", b"import os\nos.system('x')\n", "CODE_LIKE"),
        ("tool", b"\x7fELF\x02\x01\x01" + bytes(100), "EXECUTABLE"),
        ("setup.txt", b"#!/bin/sh\nls\n", "EXECUTABLE"),
        ("a.json", b"PK\x03\x04", "MISNAMED"),
        ("a.safetensors", b"some text", "MISNAMED"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c" + bytes(30), "ARCHIVE_UNREAD"),
        ("weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "UNREAD_FORMAT"),
        ("blob", b"\xf1\xf2\xf3\xf4" * 9, "UNKNOWN_FORMAT"),
        ("train.yaml", b"a: !!python/object/apply:os.system [x]\n", "CODE"),
        ("chat_template.jinja", b"{{ x.__class__ }}", "TEMPLATE_CODE"),
        ("chat_template.jinja", b"{{ x }}", "CHAT_TEMPLATE"),
        ("deep/inner.json", json.dumps({"auto_map": {"a": "b.C"}}).encode(), "REMOTE_CODE"),
        ("x.zip", zipped(b'{"trust_remote_code": true}', "config.json"), "REMOTE_CODE"),
        ("x.zip", zipped(b"print()", "setup.py"), "CODE"),
    ],
)
def test_each_is_found(tmp_path, name, data, code):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)

    assert code in codes(tmp_path)


def test_text_that_shows_code_is_no_code(tmp_path):
    (tmp_path / "README.md").write_text("```python\nimport torch\nx = torch.ones(3)\n```\n")

    assert codes(tmp_path) == set()


def test_links_are_not_followed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.py").write_text("x = 1")
    (tmp_path / "model/config.json").symlink_to(tmp_path / "secret.py")
    (tmp_path / "model/folder").symlink_to(tmp_path)

    assert [(h.code, h.path) for h in scan(tmp_path / "model").hazards] == [
        ("LINK", "config.json"),
        ("LINK", "folder"),
    ]


def test_links_of_a_hub_cache_are_looked_behind(tmp_path):
    snapshot = tmp_path / "models--org--name/snapshots/abc"
    blobs = tmp_path / "models--org--name/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_text('{"trust_remote_code": true}')
    (snapshot / "config.json").symlink_to("../../blobs/1")

    assert codes(snapshot) == {"REMOTE_CODE"}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")

    assert codes(tmp_path) == {"SPECIAL_FILE"}


def test_archives_are_not_looked_into_for_ever(tmp_path):
    data = b"x"
    for _ in range(6):
        data = zipped(data, "a.zip")
    (tmp_path / "a.zip").write_bytes(data)

    assert "SCAN_LIMIT" in codes(tmp_path)


def test_a_name_cannot_write_on_a_terminal(tmp_path):
    (tmp_path / "a\x1b[31m\nb.py").write_text("")

    [hazard] = scan(tmp_path).hazards
    assert hazard.path.isprintable()


def test_the_worst_comes_first_and_the_order_is_always_the_same(tmp_path):
    for name in ("b.py", "a.py"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "0").write_bytes(b"\xf1\xf2\xf3\xf4" * 9)

    hazards = scan(tmp_path).hazards

    assert [h.path for h in hazards] == ["a.py", "b.py", "0"]
    assert scan(tmp_path).hazards == hazards


def test_without_a_folder_there_is_an_error(tmp_path):
    with pytest.raises(SourceError):
        scan(tmp_path / "nothing")


def test_without_picklescan_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("reuselib.scanning.scan.at_hand", lambda: False)

    assert any("reuselib[scan]" in line for line in scan(tmp_path).unchecked)


def test_json_has_the_severity_of_each(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")

    written = scan(tmp_path).to_json()

    assert written["ok"] is False
    assert written["hazards"] == [
        {"code": "CODE", "path": "a.py", "message": ".py files are code", "severity": "danger"}
    ]
    json.dumps(written)


def test_every_code_has_a_severity():
    assert set(CODES.values()) <= set(SEVERITIES)
    assert Hazard("PICKLE", "a", "b").severity == "danger"


def test_every_code_is_on_the_page():
    page = Path(__file__).parents[2] / "docs/how-to/audit-a-model.md"
    text = page.read_text(encoding="utf-8")

    for code, severity in CODES.items():
        [line] = [
            line
            for line in text.splitlines()
            if line.startswith("| `") and f"`{code}`" in line.split(" | ")[0]
        ]
        assert f"| {severity} |" in line
