"""The command line as a newcomer meets it: what is typed, what is on the screen, what the exit code is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from reuselib import catalog
from reuselib.cli import main
from reuselib.cli.figures import (
    change,
    count,
    duration,
    factor,
    milliseconds,
    number,
    size,
    within,
)


def test_help_names_every_verb(typed):
    code, out, _ = typed("--help")

    assert code == 0
    assert all(
        f" {verb} " in out
        for verb in ("run", "check", "show", "compare", "verify", "schema", "adapters")
    )


@pytest.mark.parametrize(
    "arguments", [["run"], ["rnu"], ["run", "x.yaml", "--outptu", "y"], ["verify"]]
)
def test_a_wrong_command_is_a_matter_of_usage(typed, arguments):
    code, _, err = typed(*arguments)

    assert code == 2
    assert "Usage: reuselib" in err


def test_the_problems_of_a_recipe_are_all_on_standard_error(typed, recipe_file):
    recipe_file.write_text("base: {source: 3}\nsteps: [lorra]\n")

    code, out, err = typed("run", str(recipe_file))

    assert (code, out) == (2, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "base.source",
        "task",
        "steps[0].lorra",
    ]
    assert "Traceback" not in err


def test_a_base_that_is_not_there_says_what_to_do(typed, recipe_file):
    code, _, err = typed("run", str(recipe_file))

    assert code == 3
    assert "there is no folder ./somewhere" in err
    assert "\nfix: " in err


def test_show_prints_a_recipe_with_its_defaults(typed, recipe_file):
    code, out, _ = typed("show", str(recipe_file))

    assert code == 0
    assert "learning_rate: 0.001" in out
    assert "lr_scheduler_type: linear" in out


@pytest.mark.parametrize("kind", [*catalog.ADAPTERS, *catalog.TASKS])
def test_show_describes_every_adapter_and_task(typed, kind):
    code, out, _ = typed("show", kind)

    assert code == 0
    assert "meaning" in out


def test_show_of_nothing_known_names_the_nearest(typed):
    code, _, err = typed("show", "adaptors")

    assert code == 3
    assert "did you mean 'adapters'?" in err


def test_adapters_lists_plug_ins_and_says_what_is_wrong_with_a_broken_one(typed, plugin):
    plugin(
        "acme_cli",
        "raise RuntimeError('no licence')",
        "[reuselib.adapters]\nscale = acme_cli:Scale\n",
    )

    _, out, _ = typed("adapters", "--json")

    rows = {row["kind"]: row for row in json.loads(out)}
    assert rows["lora"]["fault"] == ""
    assert rows["scale"]["origin"] == "acme_cli 1.0"
    assert "no licence" in rows["scale"]["fault"]


def test_adapters_and_tasks_are_shown_as_tables(typed):
    assert "finetune" in typed("adapters")[1]
    assert "causal_lm" in typed("show", "tasks")[1]


def test_schema_is_json(typed):
    code, out, _ = typed("schema", "--ours")

    assert code == 0
    assert "lora" in json.loads(out)["$defs"]


def test_the_schema_of_manifests_is_the_one_in_the_package(typed):
    from reuselib.lineage.schema import manifest_schema

    code, out, _ = typed("schema", "--manifest")

    assert code == 0
    assert json.loads(out) == manifest_schema()
    assert typed("schema", "--manifest", "--ours")[0] == 2


def test_a_folder_without_a_manifest_fails_verification(typed, tmp_path):
    (tmp_path / "model").mkdir()

    code, out, _ = typed("verify", str(tmp_path / "model"))

    assert code == 5
    assert "has no record" in out
    assert "not checked:" in out


def test_verify_of_a_folder_that_is_not_there(typed, tmp_path):
    assert typed("verify", str(tmp_path / "nothing"))[0] == 3


def test_a_bug_is_owned_up_to_and_shown_with_debug(typed, recipe_file, plugin):
    plugin(
        "acme_bug",
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom reuselib import Adapter\n"
        "@dataclass(frozen=True)\nclass Bug(Adapter):\n    kind: ClassVar[str] = 'bug'\n"
        "    def __post_init__(self): raise RuntimeError('oh')\n"
        "    def adapt(self, module, run): ...\n    def prove(self, parents, child, structure): ...\n",
        "[reuselib.adapters]\nbug = acme_bug:Bug\n",
    )

    code, _, err = typed("run", str(recipe_file), "steps[0]=bug")

    assert code == 1
    assert "This is a bug in reuselib, not in what you did: RuntimeError: oh" in err
    assert "--debug" in err
    with pytest.raises(RuntimeError, match="oh"):
        main(["run", str(recipe_file), "steps[0]=bug", "--debug"])


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m reuselib schema | head -c 1"

    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)

    assert done.stdout == "{"
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
@pytest.mark.parametrize(("verb", "goes_on"), [("run", True), ("audit", False)])
def test_an_interrupt_ends_with_130_and_only_a_run_is_said_to_go_on(tmp_path, verb, goes_on):
    code = (
        "import sys, time\nfrom reuselib.cli import evidence, main, run\n"
        "from reuselib.cli.application import app\n"
        f"@app.command({verb!r})\ndef wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        f"sys.exit(main([{verb!r}]))\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    with started as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert err.startswith("interrupted")
    assert ("goes on after the last one" in err) == goes_on
    assert "Traceback" not in err


def test_python_dash_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "reuselib", "--help"], capture_output=True, text=True, check=True
    )

    assert "Usage: reuselib" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count(22_713_216), "22.7 M"), (count(999), "999"), (count(None), "-"), (size(90_900_000), "90.9 MB"),
        (size(12), "12 B"), (duration(0.25), "0.2 s"), (duration(80), "1 min 20 s"), (duration(7260), "2 h 1 min"),
        (milliseconds(1234.5), "1234"), (milliseconds(0.5126), "0.513"), (milliseconds("unstable"), "unstable"),
        (milliseconds(None), "-"), (factor(2.411), "2.41x"), (factor("unstable"), "unstable"), (factor(None), "-"),
        (within(0.5, [0.25, 0.75]), "0.500 [0.250, 0.750]"), (within(0.5, None), "0.500"), (within(None, None), "-"),
        (number(0.8765), "0.876"), (change(0.5, 0.75), "0.500 -> 0.750"), (change(None, None), "-"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(text, expected):
    assert text == expected


def test_no_verb_takes_an_option_that_a_recipe_field_has():
    """What decides the child is said in the recipe, so that the record can say it too."""
    import inspect

    from reuselib.cli.run import run

    assert list(inspect.signature(run).parameters) == [
        "context", "recipe", "changes", "output", "overwrite", "store", "tracker", "keep_states", "processes", "resume",
        "checkpoint_minutes", "dry_run", "as_json",
    ]  # fmt: skip
