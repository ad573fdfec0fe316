"""Where attempts are made: a few servers, and what undisturbed commands make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from uuid import uuid4

from crash.attempts import COMMANDS, Attempt, Tally
from crash.inspection import faults
from crash.recording import read_recording
from crash.server import Job, Server
from crash.trials import Trial, must
from crash.world import Place, Reference
from crash.writes import Operation
from reuselib.lineage.manifest import Manifest


@dataclass(frozen=True)
class Bench:
    """A folder, servers, and scenes."""

    folder: Path
    servers: Queue[Server]
    scenes: Mapping[str, Reference]
    """`run`: the recipe, on a disk with an old output. `gc`: packing, once both recipes were run. `unpack`: the recipe,
    once that is done. `limit`: removing, from there on. `pair`: both recipes, on a disk with an old output."""

    @classmethod
    @contextmanager
    def open(cls, folder: Path, num_servers: int) -> Iterator[Bench]:
        """Make base and rows, and see what undisturbed commands make."""
        with ExitStack() as stack:
            servers: Queue[Server] = Queue()
            for number in range(num_servers):
                servers.put(stack.enter_context(Server(folder / f"server-{number}")))
            server = servers.get()
            must(server.run(Job(arguments=[str(folder)], watched=folder / "nothing", work="build")))
            bench = cls(folder, servers, _scenes(folder, server))
            servers.put(server)
            yield bench

    def start(self, scene: str) -> Path:
        """The disk on which a scene begins."""
        return _start(self.folder, scene)

    def attempt(self, attempt: Attempt) -> Tally:
        """Disturb a command, look at what is there, run again, look again."""
        server = self.servers.get()
        place = Place(self.folder / uuid4().hex)
        try:
            place.prepare(None if attempt.cut else self.start(attempt.scene))
            return Trial(attempt, server, place, self.scenes[attempt.scene]).carry_out()
        except TimeoutError as error:
            return Tally(1, problems=[f"{attempt}: {error}"])
        finally:
            self.servers.put(server)
            shutil.rmtree(place.folder, ignore_errors=True)

    def killed(self, scene: str, at: int) -> Reference:
        """As the scene, but the command was killed after an operation and then came once more: both in one recording."""
        server, reference = self.servers.get(), self.scenes[scene]
        place = Place(self.folder / uuid4().hex)
        log: list[Operation] = []
        try:
            place.prepare(self.start(scene))
            for number, mishap in enumerate(((at, "kill-after"), None)):
                record = place.folder / f"recording-{number}"
                server.run(
                    Job(
                        arguments=place.command(COMMANDS[scene]),
                        watched=place.disk,
                        mishap=mishap,
                        record=record,
                    )
                )
                log += read_recording(record)
            hashes = (reference.last, reference.old)
            made = Reference.of(place.disk, self.start(scene), hashes, reference.seconds, log)
            return replace(made, children=reference.children, present=reference.present)
        finally:
            self.servers.put(server)
            shutil.rmtree(place.folder, ignore_errors=True)


def _start(folder: Path, scene: str) -> Path:
    return folder / "starts" / {"pair": "run", "limit": "unpack"}.get(scene, scene)


def _scenes(folder: Path, server: Server) -> dict[str, Reference]:
    before = Place(folder / "before")
    before.prepare()
    must(server.run(Job(arguments=before.command("old"), watched=before.disk)))
    _begin(folder, "run", None, before.output)

    run, place = _recorded(folder, server, ("run", "run"), before.output)
    must(server.run(Job(arguments=place.command("other"), watched=place.disk)))
    _begin(folder, "gc", place.store, before.output)
    gc, packed = _recorded(folder, server, ("gc", "gc"), before.output, run.last)
    _begin(folder, "unpack", packed.store, before.output)
    unpack, _ = _recorded(folder, server, ("unpack", "run"), before.output)
    assert len(gc.present) > len(run.children)
    assert unpack.present == gc.present
    limit, _ = _recorded(folder, server, ("limit", "limit"), before.output, run.last)
    assert 0 < len(limit.children) < len(gc.children)

    other = Manifest.read(place.other_output).digests.dir_hash
    both = replace(run, children=gc.children, other=other)
    limit = replace(limit, children=gc.children, present=frozenset(), other=other)
    return {"run": run, "gc": gc, "unpack": unpack, "limit": limit, "pair": both}


def _begin(folder: Path, scene: str, store: Path | None, output: Path) -> None:
    """Lay out the disk on which a scene begins."""
    start = _start(folder, scene)
    if store is not None:
        shutil.copytree(store, start / "store")
    shutil.copytree(output, start / "output")


def _recorded(
    folder: Path, server: Server, what: tuple[str, str], old: Path, last: str = ""
) -> tuple[Reference, Place]:
    """Carry out the command of a scene; see what it makes, and that this is as it must be."""
    scene, command = what
    place = Place(folder / f"undisturbed-{scene}")
    place.prepare(_start(folder, scene))
    record = folder / f"recording-{scene}"
    job = Job(arguments=place.command(command), watched=place.disk, record=record)
    ended = must(server.run(job))
    last = last or Manifest.read(place.output).digests.dir_hash
    hashes = (last, Manifest.read(old).digests.dir_hash)
    log = read_recording(record)
    made = Reference.of(place.disk, _start(folder, scene), hashes, ended.seconds, log)
    if scene != "limit":
        wrong = faults(place, made, finished=command == "run")
        assert not wrong, wrong
    return made, place
