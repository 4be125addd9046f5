"""Commands as they are typed, run in this process: for whoever needs many of them."""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from operators import OURS, SETTINGS, Command, Done
from provisioning.cli import main

_configure, _log, _root = structlog.configure, logging.getLogger("provisioning"), logging.getLogger()


def _configure_uncached(**options: Any) -> None:
    """What a command sets up is for itself: a logger that keeps it would be another test's as well."""
    _configure(**{**options, "cache_logger_on_first_use": False})


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line to its end, in this process for speed, with `tmp_path` as its folder and only the given settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)

    def run(line: str, stdin: str = "", **settings: str) -> Done:
        before, configured, level = structlog.get_config(), structlog.is_configured(), _log.level
        handlers = [*_root.handlers]
        capsys.readouterr()  # what others said is not the command's
        with monkeypatch.context() as shell:
            shell.setattr(structlog, "configure", _configure_uncached)
            shell.setattr(sys, "argv", ["provisioning", *line.split()])
            shell.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            for name, value in {**SETTINGS, **settings}.items():
                shell.setenv(name, value)
            try:
                with pytest.raises(SystemExit) as leaving:
                    main()
            finally:
                _log.setLevel(level)
                _root.handlers[:] = handlers
                structlog.reset_defaults()
                if configured:
                    _configure(**before)
        assert isinstance(leaving.value.code, int)
        return Done(leaving.value.code, *capsys.readouterr())

    return run
