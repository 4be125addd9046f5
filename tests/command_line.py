"""Commands as they are typed, run in this process: for whoever needs many of them."""

import io
import os
import sys
from pathlib import Path

import pytest

from operators import OURS, SETTINGS, Command, Done
from provisioning.cli import main


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line to its end, in this process for speed, with `tmp_path` as its folder and only the given settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)

    def run(line: str, stdin: str = "", **settings: str) -> Done:
        with monkeypatch.context() as shell:
            shell.setattr(sys, "argv", ["provisioning", *line.split()])
            shell.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            for name, value in {**SETTINGS, **settings}.items():
                shell.setenv(name, value)
            with pytest.raises(SystemExit) as leaving:
                main()
        assert isinstance(leaving.value.code, int)
        return Done(leaving.value.code, *capsys.readouterr())

    return run
