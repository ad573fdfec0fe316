"""The cache folder is the one asked for, else the platform's."""

from pathlib import Path

import pytest

from reuselib.places import cache_folder


def test_the_environment_decides(tmp_path, monkeypatch):
    monkeypatch.setenv("REUSELIB_CACHE", str(tmp_path / "here"))

    assert cache_folder() == tmp_path / "here"
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/reuselib"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/reuselib"),
        ("linux", {}, "~/.cache/reuselib"),
        ("darwin", {}, "~/Library/Caches/reuselib"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/reuselib"),
        ("win32", {}, "~/AppData/Local/reuselib"),
    ],
)
def test_each_platform_has_its_place(monkeypatch, platform, variables, expected):
    for name in ("REUSELIB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)

    assert cache_folder() == Path(expected).expanduser()
