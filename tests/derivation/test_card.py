from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from reuselib.derivation.card import card
from reuselib.model.figures import Figures, read_figures


def parts(text: str) -> tuple[dict, str]:
    """Front matter and page."""
    _, front, page = text.split("---\n", 2)
    return yaml.safe_load(front), page


def test_the_front_matter_is_yaml_that_hubs_read(chain):
    front, _ = parts((chain.lora.folder / "README.md").read_text(encoding="utf-8"))

    assert front == {
        "base_model": "file:base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "tags": ["reuselib", "lora"],
    }


@pytest.mark.parametrize("step", ["merged", "tuned"])
def test_a_whole_child_is_a_finetune_for_transformers_of_the_first_base(chain, step):
    """A hub's `merge` is for several models; the base is the root, not the step before."""
    front, page = parts((getattr(chain, step).folder / "README.md").read_text(encoding="utf-8"))

    assert (front["base_model_relation"], front["library_name"]) == ("finetune", "transformers")
    assert front["base_model"] == "file:base"
    assert (
        f"made from `urn:reuselib:model:{getattr(chain, step).manifest.parents[0].uri[19:]}`"
        in page
    )


def test_a_base_of_the_hub_is_named_as_the_hub_does(chain):
    manifest, figures = chain.lora.manifest, read_figures(chain.lora.folder)

    front, page = parts(card(manifest, figures, "pkg:huggingface/acme/bert@" + "a" * 40))

    assert front["base_model"] == "acme/bert"
    assert "a" * 40 in page


@pytest.mark.parametrize("root", ['file:a "b": c', "file:a\nb: c", "file:- [x]", "file:modèle-été"])
def test_no_name_breaks_the_front_matter(chain, root):
    front, _ = parts(card(chain.lora.manifest, read_figures(chain.lora.folder), root))

    assert front["base_model"] == root
    assert set(front) == {"base_model", "base_model_relation", "library_name", "tags"}


def test_the_page_says_what_was_measured_and_what_identifies_the_model(chain):
    manifest, figures = chain.tuned.manifest, read_figures(chain.tuned.folder)

    _, page = parts(card(manifest, figures, "file:base"))

    assert f"| dirHash | `{manifest.digests.dir_hash}` |" in page
    assert f"| tensorHash1 | `{manifest.digests.tensor_hash}` |" in page
    assert f"| parent's dirHash | `{chain.merged.manifest.digests.dir_hash}` |" in page
    assert "| seed | 0 |" in page
    after, before = figures.after["accuracy"], figures.before["accuracy"]
    assert (
        f"| accuracy | {after:.4f}, {before:.4f} before this step (measured on 16 test rows) |"
        in page
    )
    configuration = next(line for line in page.splitlines() if line.startswith("| configuration"))
    assert json.loads(configuration.split("`")[1]) == manifest.definition.recipe


def test_the_figures_are_those_of_this_step_in_the_right_order(chain):
    figures = replace(
        read_figures(chain.tuned.folder), before={"accuracy": 0.25}, after={"accuracy": 0.75}
    )

    assert "| accuracy | 0.7500, 0.2500 before this step" in card(
        chain.tuned.manifest, figures, "file:base"
    )


def test_what_was_not_measured_is_not_claimed(chain):
    _, page = parts(card(chain.tuned.manifest, Figures(), "file:base"))

    assert "measured" not in page
    assert "accuracy" not in page.replace(json.dumps(chain.tuned.manifest.definition.recipe), "")


def test_cost_drift_and_intervals_are_on_the_page(chain):
    manifest, figures = chain.tuned.manifest, read_figures(chain.tuned.folder)

    _, page = parts(card(manifest, figures, "file:base"))

    low, high = figures.intervals["after"]["accuracy"]
    assert f"| accuracy, 95 % interval | {low:.4f} to {high:.4f} |" in page
    assert f"| parameters | {figures.cost['num_parameters']:,} |" in page
    assert f"| operations for one row | {figures.cost['flops']:,} |" in page
    assert f"| rows answered like the parent | {figures.drift['agreement']:.4g} |" in page
    assert f"| calibration error | {figures.quality['ece']:.4f} |" in page


def test_a_time_that_means_nothing_is_not_on_the_page(chain):
    figures = read_figures(chain.tuned.folder)
    shaken = replace(figures, cost={**figures.cost, "latency_p50": "unstable"})

    _, page = parts(card(chain.tuned.manifest, shaken, "file:base"))

    assert "milliseconds for one row" not in page
