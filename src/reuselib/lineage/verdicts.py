"""What gates of recipes said of children. A child that missed one stays in its store, with a note beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.disk import make_folder, write_file, writing
from reuselib.lineage.rooms import require_digest


@dataclass(frozen=True)
class Verdicts:
    """The notes of one store."""

    folder: Path

    def note(self, derivation_id: str, failures: Sequence[str]) -> None:
        """Note what gates a child missed; none: forget what was noted.

        Raises:
            StoreError: that is no id, or the folder cannot be written.
        """
        note = self._place(derivation_id)
        if not failures:
            note.unlink(missing_ok=True)
            return
        with writing(self.folder):
            make_folder(self.folder)
        write_file(note, canonical.dumps({"failed": list(failures)}))

    def failures(self, derivation_id: str) -> tuple[str, ...]:
        """What was last noted so; nothing if the child passed, or was never judged.

        Raises:
            StoreError: that is no id.
        """
        try:
            note = canonical.loads(self._place(derivation_id).read_bytes())
        except (OSError, IntegrityError):
            return ()
        failed = note.get("failed") if isinstance(note, dict) else None
        return tuple(str(each) for each in failed) if isinstance(failed, list) else ()

    def _place(self, derivation_id: str) -> Path:
        require_digest(derivation_id)
        return self.folder / f"{derivation_id}.json"
