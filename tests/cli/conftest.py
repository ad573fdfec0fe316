"""What the tests of the command line share."""

from __future__ import annotations

import pytest

from reuselib.cli import main


@pytest.fixture
def typed(capsys):
    """Types a command; gives exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run
