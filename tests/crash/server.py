"""Starts runs in no time: a process that has imported everything, has computed nothing, and forks one child a run.

What has run torch must never fork, since its threads are not there in the child; so nothing is computed here, and each
child ends with its one run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

MODULES = "modules.json"


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

    def run(  # noqa: PLR0913 - a run, and what is done to it
        self,
        arguments: Sequence[str],
        watched: Path,
        *,
        work: str = "reuselib",
        mishap: tuple[int, str] | None = None,
        kill_after: float | None = None,
        record: Path | None = None,
        limit: float = 120.0,
    ) -> Ended:
        """Fork a child that works, and wait for its end.

        Args:
            arguments: of the work.
            watched: the folder whose changes count; the work is done in the one above.
            work: `reuselib`, or `trainer` to compare with.
            mishap: at which operation, and what, see `writes.Mishap`.
            kill_after: so many seconds after its start.
            record: file for the recorded operations.
            limit: seconds after which it hangs.

        Raises:
            TimeoutError: it hangs; it was killed.
        """
        request = {
            "arguments": list(arguments),
            "watched": str(watched),
            "work": work,
            "mishap": mishap,
            "kill_after": kill_after,
            "record": str(record) if record else None,
            "limit": limit,
            "log": str(self.folder / "log"),
            "result": str(self.folder / "result.json"),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n".encode())
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or "null")
        if answer is None:
            raise RuntimeError(f"the server died: {(self.folder / 'server').read_text()[-2000:]}")
        if answer["hung"]:
            raise TimeoutError(
                f"no end within {limit:.0f} s: {(self.folder / 'log').read_text()[-2000:]}"
            )
        said = (self.folder / "log").read_text(errors="replace")
        return Ended(answer["code"], answer["seconds"], said, answer["num_operations"])

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
        request = json.loads(line)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(request["result"])
        started = time.perf_counter()
        child = os.fork()
        if not child:
            _work(request, folder)
        code, hung = _wait(child, request["kill_after"], request["limit"])
        result: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            result = json.loads(Path(request["result"]).read_text())
        answer = {
            "code": None if code < 0 else code,
            "hung": hung,
            "seconds": time.perf_counter() - started,
            "num_operations": result.get("num_operations"),
        }
        os.write(answers, f"{json.dumps(answer)}\n".encode())


def _wait(child: int, kill_after: float | None, limit: float) -> tuple[int, bool]:
    """Exit code, negative for a signal; and whether it had to be ended."""
    descriptor = os.pidfd_open(child)
    try:
        done = select.select([descriptor], [], [], limit if kill_after is None else kill_after)[0]
        if not done:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), not done and kill_after is None
    finally:
        os.close(descriptor)


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
        from crash.works import WORKS
        from crash.writes import Mishap, Watch

        mishap = Mishap(*request["mishap"]) if request["mishap"] else None
        watch = Watch(watched, mishap, keep=request["record"] is not None)
        watch.install()
        code = WORKS[request["work"]](request["arguments"], watch)
        sys.stdout.flush()
        watch.root = Path("/nowhere")
        if request["record"]:
            from crash.recording import write_recording

            write_recording(Path(request["record"]), watch.log)
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
    """What a first run was seen to need."""
    import reuselib.cli.verbs
    import reuselib.derivation.execution  # noqa: F401

    path = folder / MODULES
    for name in json.loads(path.read_text()) if path.exists() else []:
        with contextlib.suppress(Exception):  # made on the fly, or not meant to be imported
            importlib.import_module(name)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
