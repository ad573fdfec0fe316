from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from reuselib.lineage import canonical
from reuselib.lineage.environment import environment, versions


def test_versions_of_what_computes_are_recorded():
    found = versions()

    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert "reuselib" in found


def test_environment_is_json_and_knows_the_threads_of_torch():
    facts = canonical.loads(canonical.dumps(environment()))

    assert facts["torch"]["threads"] == torch.get_num_threads()
    assert facts["cores"] >= 1
    assert facts["cpu"]


def test_nothing_private_is_in_it(monkeypatch):
    monkeypatch.setenv("API_TOKEN", "hf_secret_value")
    text = canonical.dumps(environment()).decode()

    for secret in ("hf_secret_value", platform.node(), str(Path.home()), os.getcwd(), sys.prefix):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_torch_is_not_loaded_for_it():
    code = (
        "import sys\n"
        "from reuselib.lineage.environment import environment\n"
        "assert 'torch' not in environment() and 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
