"""Runs as they are typed: with `--processes`, under torchrun, under accelerate; each starts two processes anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from crews import Crews, different, may_differ, record, tensors

from reuselib.lineage.manifest import Manifest
from reuselib.testing.world import compare

RECIPES = Path(__file__).parents[2] / "recipes"
LIMIT = 240
"""Seconds after which a run counts as hanging."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = (
    *("accelerate.commands.launch", "--config_file", str(RECIPES / "accelerate-fsdp2.yml")),
    *("--main_process_port", "0"),
)
GATE = "gates=[{num_parameters: {max: 1}}]"


class Place:
    """A recipe in a file, and a store."""

    def __init__(self, folder: Path, text: str) -> None:
        self.recipe, self.store = folder / "recipe.yaml", folder / "store"
        self.recipe.write_text(text)

    @property
    def command(self) -> list[str]:
        return ["-m", "reuselib", "run", str(self.recipe), "--store", str(self.store)]

    def run(self, *launcher: str) -> None:
        """`reuselib run` in the processes that a module starts, given with its options."""
        done = subprocess.run(
            [sys.executable, "-m", *launcher, *self.command],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("model:") == 1

    @property
    def child(self) -> Path:
        """The only one in the store."""
        (child,) = (self.store / "models").iterdir()
        return child


def test_torchrun_ends_in_the_child_of_the_own_launcher(crews: Crews, tmp_path: Path) -> None:
    place = Place(tmp_path, crews.recipes["lora"].to_yaml())

    place.run(*TORCHRUN)

    own = Manifest.read(crews.child("lora", 2))
    found = Manifest.read(place.child)
    assert found.derivation_id == own.derivation_id
    assert found.digests == own.digests


def test_shares_under_accelerate_are_recorded_as_one_process_would_record_it(
    crews: Crews, tmp_path: Path
) -> None:
    place = Place(tmp_path, crews.recipes["finetune"].to_yaml())

    place.run(*ACCELERATE)

    plain = crews.child("finetune", 1)
    compare(tensors(plain), tensors(place.child), 2)
    internal = ("buildDefinition", "internalParameters")
    differing = {
        path for path in different(record(plain), record(place.child)) if not may_differ(path)
    }
    assert differing == {(*internal, "facts", "sharding")}
    told = record(place.child)["buildDefinition"]["internalParameters"]
    assert (told["worldSize"], told["facts"]["sharding"]) == (2, "fsdp2")


def test_a_killed_process_ends_the_run_and_the_next_one_ends_in_the_same_child(
    crews: Crews, tmp_path: Path
) -> None:
    """The next one misses a gate besides, which the first process says and both end with."""
    place = Place(tmp_path, crews.recipes["lora"].to_yaml())
    command = [sys.executable, *place.command, GATE, "--processes", "2"]

    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        os.kill(_child_of_rank(process, 1), signal.SIGKILL)
        _, told = process.communicate(timeout=LIMIT)

    assert process.returncode == 128 + signal.SIGKILL
    assert "process 1 was ended by SIGKILL" in told
    assert "Traceback" not in told
    assert "bug in reuselib" not in told

    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=LIMIT
    )

    assert done.returncode == 4, done.stderr
    for said in (done.stdout, done.stderr):  # one is for figures, the other for what went wrong
        assert said.count("gate failed: num_parameters") == 1
    assert "process 1" not in done.stderr
    assert "Traceback" not in done.stderr
    assert Manifest.read(place.child).digests == Manifest.read(crews.child("lora", 2)).digests


def _child_of_rank(parent: subprocess.Popen[str], rank: int) -> int:
    """The process of that rank, as soon as it has got as far as torch."""
    while parent.poll() is None:
        try:
            pids = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            for pid in pids:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                loaded = "libtorch_cpu" in Path(f"/proc/{pid}/maps").read_text()
                if b"RANK=%d" % rank in environment and loaded:
                    return int(pid)
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("the run ended by itself")
