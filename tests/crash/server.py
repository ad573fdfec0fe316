"""Starts runs in no time: a process that has imported everything, has computed nothing, and forks one child a run,
or several that run at once.

What has run torch must never fork, since its threads are not there in the child; so nothing is computed here, and each
child ends with its one run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

MODULES = "modules.json"
HEAVY = (
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "transformers.models.auto.modeling_auto",
    "peft",
    "accelerate",
    "safetensors.torch",
    "sklearn.linear_model",
    "sklearn.feature_extraction.text",
    "pydantic.type_adapter",
)
"""What runs import of other people's; one that is missing here only makes them slower."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a child of the server is to do, and what is done to it."""

    arguments: Sequence[str]
    """Of the work."""
    watched: Path
    """The folder whose changes count; the work is done in the one above."""
    work: str = "reuselib"
    """One of `works.WORKS`."""
    mishap: tuple[int, str] | None = None
    """At which operation, and what, see `writes.Mishap`."""
    kill_after: float | None = None
    """So many seconds after its start."""
    record: Path | None = None
    """File for the recorded operations; also of a job that is killed by a mishap."""
    limit: float = 120.0
    """Seconds after which it hangs."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int | None
    """Exit code; None if it was killed."""
    seconds: float
    said: str
    """On both streams."""
    num_operations: int | None
    """Changes to the watched folder; None if it was killed."""


class Server:
    """The process that forks, seen from the one that asks. Ends with the block."""

    def __init__(self, folder: Path) -> None:
        """`folder`: for what server and children have to say."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._process = self._start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, job: Job) -> Ended:
        """As `run_all`, with one."""
        return self.run_all([job])[0]

    def run_all(self, jobs: Sequence[Job]) -> list[Ended]:
        """Fork a child for each job, all at once, and wait for their ends.

        Raises:
            TimeoutError: one hangs; it was killed.
        """
        requests = [
            {
                **asdict(job),
                "log": self.folder / f"log-{number}",
                "result": self.folder / f"result-{number}.json",
            }
            for number, job in enumerate(jobs)
        ]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(requests, default=str)}\n".encode())
        self._process.stdin.flush()
        answers = json.loads(self._process.stdout.readline() or "null")
        if answers is None:
            raise RuntimeError(f"the server died: {(self.folder / 'server').read_text()[-2000:]}")
        said = [Path(each["log"]).read_text(errors="replace") for each in requests]
        for job, answer, words in zip(jobs, answers, said, strict=True):
            if answer["hung"]:
                raise TimeoutError(f"no end within {job.limit:.0f} s: {words[-2000:]}")
        return [
            Ended(each["code"], each["seconds"], words, each["num_operations"])
            for each, words in zip(answers, said, strict=True)
        ]

    def restart(self) -> None:
        """With everything imported that the last run needed."""
        self.__exit__()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with (self.folder / "server").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, __file__, str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the one who asks
            )


def serve(folder: Path) -> None:
    """Answer requests from standard input, until it ends."""
    answers = os.dup(1)
    os.dup2(2, 1)
    _import(folder)
    gc.collect()
    gc.freeze()  # what is shared with the children stays shared
    for line in sys.stdin.buffer:
        requests = json.loads(line)
        children = [_Child.start(each, folder) for each in requests]
        _wait(children)
        os.write(answers, f"{json.dumps([each.answer() for each in children])}\n".encode())


@dataclass
class _Child:
    """One that runs."""

    request: dict[str, Any]
    process: int
    descriptor: int
    started: float
    code: int | None = None
    """Exit code, negative for a signal; None while it runs."""
    seconds: float = 0.0
    hung: bool = False

    @classmethod
    def start(cls, request: dict[str, Any], folder: Path) -> _Child:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(request["result"])
        started = time.perf_counter()
        process = os.fork()
        if not process:
            _work(request, folder)
        return cls(request, process, os.pidfd_open(process), started)

    @property
    def left(self) -> float:
        """Seconds until it is killed."""
        limit, after = self.request["limit"], self.request["kill_after"]
        return self.started + (limit if after is None else after) - time.perf_counter()

    def kill(self) -> None:
        self.hung = self.request["kill_after"] is None
        os.kill(self.process, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """See how it ended; waits for that."""
        _, status = os.waitpid(self.process, 0)
        self.seconds = time.perf_counter() - self.started
        self.code = os.waitstatus_to_exitcode(status)
        os.close(self.descriptor)

    def answer(self) -> dict[str, Any]:
        assert self.code is not None
        result: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            result = json.loads(Path(self.request["result"]).read_text())
        return {
            "code": None if self.code < 0 else self.code,
            "hung": self.hung,
            "seconds": self.seconds,
            "num_operations": result.get("num_operations"),
        }


def _wait(children: Sequence[_Child]) -> None:
    """Until all have ended, or were ended in their time."""
    while running := [each for each in children if each.code is None]:
        left = max(0.0, min(each.left for each in running))
        ended = select.select([each.descriptor for each in running], [], [], left)[0]
        for each in running:
            if each.descriptor in ended:
                each.end()
            elif each.left <= 0:
                each.kill()


def _work(request: dict[str, Any], folder: Path) -> None:
    """The child's life."""
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        watched = Path(request["watched"])
        if watched.parent.is_dir():
            os.chdir(watched.parent)
        from crash.recording import write_recording
        from crash.works import WORKS
        from crash.writes import Mishap, Watch

        mishap = Mishap(*request["mishap"]) if request["mishap"] else None
        watch = Watch(watched, mishap, keep=request["record"] is not None)
        if request["record"]:
            watch.at_end = partial(write_recording, Path(request["record"]), watch.log)
        watch.install()
        code = WORKS[request["work"]](request["arguments"], watch)
        sys.stdout.flush()
        watch.root = Path("/nowhere")
        if request["record"]:
            watch.at_end()
        Path(request["result"]).write_text(json.dumps({"num_operations": len(watch.log)}))
        names = sorted(name for name in sys.modules if not name.startswith("__"))
        if request["mishap"] is None and request["kill_after"] is None:
            (folder / MODULES).write_text(json.dumps(names))
    except BaseException:  # noqa: BLE001 - nothing of this may reach the server's loop
        traceback.print_exc()
        code = 70
    finally:
        os._exit(code)


def _import(folder: Path) -> None:
    """All of the product, what it needs of others, and what runs were seen to need before a `restart`."""
    import reuselib

    names = [each.name for each in pkgutil.walk_packages(reuselib.__path__, "reuselib.")]
    path = folder / MODULES
    for name in (*names, *HEAVY, *(json.loads(path.read_text()) if path.exists() else [])):
        with contextlib.suppress(Exception):  # made on the fly, or not meant to be imported
            importlib.import_module(name)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
