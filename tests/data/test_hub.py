"""Data sets of the hub, read from a local cache of it: pinned to a commit, never anything else."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("datasets")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {"0": bad, "1": good}}}
---
"""
SUBSETS = """---
configs:
- {config_name: long, data_files: [{split: train, path: long.jsonl}]}
- {config_name: short, data_files: [{split: train, path: short.jsonl}]}
---
"""
LOADS = """
import json
from reuselib.data import Data
data = Data(source="acme/moods")
splits = data.load()
pinned = data.pin(splits)
print(json.dumps({
    "source": splits.source, "row": splits.train[0], "sizes": [len(splits.train), len(splits.test)],
    "revision": pinned.revision, "same": pinned.load().digest == splits.digest,
    "facts": splits.facts["revision"],
}))
"""
FAILS = """
import json
from reuselib.data import Data
from reuselib.errors import ReuseError
cases = [
    {"source": "acme/moods", "revision": "v2"}, {"source": "acme/mods"},
    {"source": "acme/two"}, {"source": "acme/two", "subset": "shrt"}, {"source": "acme/none"},
]
for case in cases:
    try:
        Data(**case).load()
    except ReuseError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
print(len(Data(source="acme/two", subset="short").load().train) > 0)
"""


def lines(count):
    return "".join(json.dumps({"text": f"t{i}", "label": i % 2}) + "\n" for i in range(count))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The folder of a hub cache with three data sets, laid out as the hub's client does it."""
    home = tmp_path_factory.mktemp("hub")
    contents = {
        "moods": {"README.md": CARD, "train.jsonl": lines(50), "test.jsonl": lines(20)},
        "two": {"README.md": SUBSETS, "long.jsonl": lines(50), "short.jsonl": lines(30)},
        "none": {"README.md": "nothing here"},
    }
    for name, files in contents.items():
        folder = home / f"hub/datasets--acme--{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text(COMMIT)
        (folder / "snapshots" / COMMIT).mkdir(parents=True)
        for file, text in files.items():
            (folder / "snapshots" / COMMIT / file).write_text(text)
    return home


def run(code, home):
    """Run in a process of its own: the hub's client reads its settings when it is imported."""
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_branch_is_pinned_to_its_commit_and_classes_have_names(hub):
    (line,) = run(LOADS, hub)

    assert json.loads(line) == {
        "source": f"hf://datasets/acme/moods@{COMMIT}",
        "row": {"text": "t0", "label": "bad"},
        "sizes": [50, 20],
        "revision": COMMIT,
        "same": True,
        "facts": COMMIT,
    }


def test_what_is_not_there_is_refused_by_name(hub):
    revision, name, several, subset, empty, loaded = run(FAILS, hub)

    assert "SourceError: the data set 'acme/moods' at 'v2' is not in the local cache" in revision
    assert "SourceError: the data set 'acme/mods' is not in the local cache" in name
    assert "has several subsets" in several
    assert "one of long, short" in several
    assert "did you mean 'short'?" in subset
    assert "DataError: the files of the data set 'acme/none' cannot be read as rows" in empty
    assert loaded == "True"
