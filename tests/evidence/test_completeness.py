from __future__ import annotations

import json
import shutil

import pytest

from reuselib.evidence.completeness import GROUPS, complete
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.manifest import Manifest


def of(folder):
    manifest = Manifest.read(folder)
    return complete(folder, manifest, walk(manifest, read_ancestors(folder)))


def sources(found) -> dict[str, str]:
    return {each.name: each.source for each in found.attributes}


def test_an_empty_folder_scores_nothing_and_every_gap_says_how_to_fill_it(tmp_path):
    found = complete(tmp_path, None)

    assert found.score == 0
    assert found.by_group == dict.fromkeys(GROUPS, 0)
    assert len(found.gaps) == len(found.attributes)
    assert all(each.fix for each in found.gaps)


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_what_is_derived_tells_most_without_a_hand(chain, step):
    found = of(getattr(chain, step).folder)

    assert found.score >= 0.8
    assert found.by_group["reproducibility"] == 1
    assert {each.name for each in found.gaps} == {
        "licence",
        "authors",
        "paper or address",
        "language",
        "limitations",
        "maintenance",
    }


def test_a_card_fills_the_rest(chain, tmp_path):
    child = shutil.copytree(chain.tuned.folder, tmp_path / "child")
    front = "license: mit\nauthors: [me]\npaper: x\nlanguage: en\nlimitations: y\ncontact: z\n"
    (child / "README.md").write_text(f"---\n{front}---\n")

    found = of(child)

    assert found.gaps == ()
    assert found.score == 1
    assert sources(found)["authors"] == "declared"


def test_an_adapter_inherits_what_prepares_its_inputs(chain):
    assert sources(of(chain.lora.folder))["preprocessing"] == "inherited"
    assert sources(of(chain.merged.folder))["preprocessing"] == "declared"


def test_without_rows_metrics_are_gaps(tmp_path):
    from chains import run
    from reuselib.adapters.quantize import Quantize
    from reuselib.tasks.text_classification import TextClassification
    from reuselib.testing.tiny import tiny_bert

    base = tiny_bert(tmp_path / "base", head=True)
    task = TextClassification(labels=("bad", "good"))
    [child] = run(Quantize(), base, tmp_path / "store", data=None, task=task).children

    gaps = {each.name for each in of(child.folder).gaps}

    assert gaps >= {"data set", "splits", "performance", "rows by digest", "latency"}


def test_a_base_with_a_card_declares(tmp_path, chain):
    base = shutil.copytree(chain.base, tmp_path / "base")
    (base / "README.md").write_text("---\nbase_model: a/b\nlicense: mit\n---\n")

    known = {name for name, source in sources(complete(base, None)).items() if source == "declared"}

    assert known == {"parent", "licence", "architecture", "preprocessing"}


def test_broken_files_are_gaps_and_no_traceback(chain, tmp_path):
    child = shutil.copytree(chain.tuned.folder, tmp_path / "child")
    for name in ("lineage/metrics.json", "lineage/environment.json"):
        (child / name).write_text('{"x":')
    (child / "README.md").write_text("---\n[\n---\n")

    assert {"performance", "environment"} <= {each.name for each in of(child).gaps}


def test_names_are_unique_and_json_is_plain(chain):
    found = of(chain.tuned.folder)

    assert len(sources(found)) == len(found.attributes)
    json.dumps(found.to_json())
