"""Two runs on one store, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from chains import Chain
from reuselib.derivation import execution
from reuselib.derivation.claiming import claimed, needs
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute, hand_over, make
from reuselib.derivation.link import Link
from reuselib.derivation.plan import Plan
from reuselib.lineage.collection import collect
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify
from reuselib.recipe import Recipe
from reuselib.testing.tiny import tiny_bert, tiny_rows

RUN = "import sys; from reuselib.cli import main; sys.exit(main(sys.argv[1:]))"


class TestShared:
    """What another run has made since the plan was looked at."""

    def test_children_that_are_there_by_now_are_shared_not_made_again(self, chain, monkeypatch):
        monkeypatch.setattr(Plan, "finished", lambda self: ())

        done = execute(chain.plan(), Runtime())

        assert [child.reused for child in done.children] == [True, True, True]
        assert done.children[-1].manifest == chain.tuned.manifest
        assert done.model().manifest == chain.tuned.manifest

    def test_what_follows_a_shared_child_is_what_it_always_is(self, chain, tmp_path, monkeypatch):
        store = chain.copied_store(tmp_path)
        for child in (chain.merged, chain.tuned):
            shutil.rmtree(store / "models" / child.folder.name)
        monkeypatch.setattr(Plan, "finished", lambda self: ())

        done = execute(chain.plan(store=store), Runtime())

        assert [child.reused for child in done.children] == [True, False, False]
        assert [child.manifest.digests for child in done.children] == [
            child.manifest.digests for child in chain.execution.children
        ]
        assert list((store / "claims").iterdir()) == []


def test_a_claim_names_the_parent_and_all_that_it_was_made_from(chain):
    settled: Plan = chain.plan()
    parent = chain.merged
    link = Link(settled, settled.steps[2], _pinned(parent))

    named = set(needs(link))

    for child in (chain.lora, chain.merged):
        assert {child.manifest.derivation_id, child.manifest.digests.dir_hash} <= named
    assert settled.base.manifest.digests.dir_hash in named


def test_from_its_first_step_to_its_last_a_run_keeps_what_it_has_made(chain, tmp_path, monkeypatch):
    store = Store(chain.copied_store(tmp_path))
    for child in (chain.merged, chain.tuned):
        shutil.rmtree(store.models / child.folder.name)
    settled, kept = chain.plan(store=store.path), []

    @contextmanager
    def looking(link, report):
        # between two steps: nobody has claimed one
        kept.append(collect(store, limit_bytes=0, idle_seconds=0))
        with claimed(link, report) as found:
            yield found

    monkeypatch.setattr(execution, "claimed", looking)
    done = execute(settled, Runtime())

    assert [child.reused for child in done.children] == [True, False, False]
    assert [sum(each.what == "child" for each in one.items) for one in kept] == [1, 2]
    whys = {each.why for one in kept for each in one.items if each.what == "child"}
    assert whys == {"a running process needs it"}
    assert list(store.claims.folder.iterdir()) == []


def test_what_was_packed_before_it_is_handed_over_is_handed_over(chain, tmp_path):
    store = Store(chain.copied_store(tmp_path))
    runtime = Runtime(output=tmp_path / "output")
    made = make(chain.plan(store=store.path), runtime)
    collect(store, idle_seconds=0)
    assert not made.children[-1].folder.exists()

    hand_over(made, runtime)

    assert verify(tmp_path / "output").ok


def _pinned(child):
    from reuselib.derivation.plan import as_parent

    return as_parent(child.folder, child.manifest)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    tiny_bert(tmp_path / "bert")
    (tmp_path / "rows").mkdir()
    rows = "".join(f"{json.dumps(row)}\n" for row in tiny_rows(32))
    for split in ("train", "test"):
        (tmp_path / "rows" / f"{split}.jsonl").write_text(rows)
    (tmp_path / "r.yaml").write_text(
        f"base: {{source: {tmp_path / 'bert'}}}\ntask: text_classification\n"
        f"data: {{source: {tmp_path / 'rows'}}}\n"
        "steps:\n  - finetune: {train: [head], fit: {epochs: 2, batch_size: 8}}\n"
    )
    return tmp_path / "r.yaml"


def begin(recipe: Path, store: Store) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "run", str(recipe), "--store", str(store.path), "--json"]
    few = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (recipe.parent / "log").open("a") as log:
        return subprocess.Popen(command, env=few, text=True, stdout=subprocess.PIPE, stderr=log)


def wait_until(holds, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_open(process: subprocess.Popen[str], path: Path) -> bool:
    try:
        return any(
            os.readlink(each) == str(path) for each in Path(f"/proc/{process.pid}/fd").iterdir()
        )
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sees who waits by open files")
@pytest.mark.parametrize("first_dies", [False, True])
def test_the_second_run_waits_and_shares_or_takes_over(recipe, tmp_path, first_dies):
    store = Store((tmp_path / "store").resolve())
    settled = Recipe.read(recipe).plan(store=store.path)
    key = settled.id(settled.steps[0], settled.base)
    path = store.claims.folder / f"{key}.claim"
    with ExitStack() as stack:
        with store.claim(key):
            runs = [stack.enter_context(begin(recipe, store)) for _ in range(2)]
            stack.callback(lambda: [run.kill() for run in runs])
            # both wait for this process, so neither can have begun
            wait_until(lambda: all(has_open(run, path) for run in runs))
            told = f"waiting: for another run (process {os.getpid()}), which makes the same child"
            # while they wait, and in a file, where no bar is drawn
            wait_until(lambda: (tmp_path / "log").read_text().count(told) == len(runs))
            if not first_dies:
                third = stack.enter_context(begin(recipe, store))
                stack.callback(third.kill)
                wait_until(lambda: has_open(third, path))
                third.send_signal(signal.SIGINT)
                assert third.wait(timeout=20) == 130
        if first_dies:
            wait_until(lambda: _holder(path) in {run.pid for run in runs})
            dead = next(run for run in runs if run.pid == _holder(path))
            dead.send_signal(signal.SIGKILL)
            dead.wait()
            runs.remove(dead)
        outputs = [run.communicate(timeout=120) for run in runs]

        assert [run.returncode for run in runs] == [0] * len(runs), (tmp_path / "log").read_text()
    told = [json.loads(out)["steps"][0] for out, _ in outputs]
    assert sorted(each["reused"] for each in told) == ([False] if first_dies else [False, True])
    assert [each.name for each in store.models.iterdir()] == [key]
    assert verify(store.models / key).ok
    assert {each["id"] for each in told} == {key}
    assert store.claims.held() == {}  # the next look clears away what the dead one needed
    assert list(store.claims.folder.iterdir()) == []


def _holder(path: Path) -> int | None:
    try:
        return json.loads(path.read_text()).get("process")
    except (OSError, ValueError):
        return None


def test_a_packed_child_is_found_by_a_run(chain: Chain, tmp_path):
    from reuselib.lineage.collection import collect

    store = Store(chain.copied_store(tmp_path))
    done = collect(store, idle_seconds=0)
    assert [each.action for each in done.items].count("packed") >= 2

    again = execute(chain.plan(store=store.path), Runtime())

    assert [child.reused for child in again.children] == [True, True, True]
    assert [child.manifest for child in again.children] == [
        c.manifest for c in chain.execution.children
    ]
