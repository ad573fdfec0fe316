"""Bases: folders of those that are nowhere else, and notes where the others were last seen. By `dirHash`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.disk import make_folder, write_file, writing
from reuselib.lineage.rooms import require_digest


@dataclass(frozen=True)
class Bases:
    """Those of one store."""

    folder: Path

    def kept(self, dir_hash: str) -> Path | None:
        """The folder of one that is kept here.

        Raises:
            StoreError: that is no digest.
        """
        require_digest(dir_hash)
        kept = self.folder / dir_hash
        return kept if kept.is_dir() else None

    def noted(self, dir_hash: str) -> Path | None:
        """Where one was, which need not be there any more. A damaged note is as good as none: it will be written again.

        Raises:
            StoreError: that is no digest.
        """
        try:
            note = canonical.loads(self._note(dir_hash).read_bytes())
        except (OSError, IntegrityError):
            return None
        path = note.get("path") if isinstance(note, dict) else None
        return Path(path) if isinstance(path, str) else None

    def note(self, dir_hash: str, path: Path) -> None:
        """Note where one is.

        Raises:
            StoreError: that is no digest, or the folder cannot be written.
        """
        file = self._note(dir_hash)
        note = canonical.dumps({"path": str(path.absolute())})
        with suppress(OSError):
            if file.read_bytes() == note:
                return  # so a store that may only be read serves those whose children are all there
        with writing(self.folder):
            make_folder(self.folder)
        write_file(file, note)

    def forget(self, dir_hash: str) -> None:
        """Remove a note.

        Raises:
            OSError: it cannot be removed.
        """
        self._note(dir_hash).unlink()

    def _note(self, dir_hash: str) -> Path:
        require_digest(dir_hash)
        return self.folder / f"{dir_hash}.json"
