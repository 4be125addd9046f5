"""The emulator's own folder, which only its user can read, and which one emulator uses at a time."""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep

from provisioning.errors import ConfigurationError
from provisioning.settings import demo

ENDS_WITHIN = 3.0  # seconds, of another emulator


class Folder:
    """`path` is made if need be. Until `close`, nobody else has it."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when it cannot be written, or another emulator runs in it."""
        self.path = path
        try:
            self._take(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"Cannot write in {path}: {error.strerror}. Choose another folder.") from error
        give_up_at = monotonic() + ENDS_WITHIN
        while not self._locked():
            if monotonic() > give_up_at:
                os.close(self._lock)
                raise ConfigurationError(f"Another emulator runs in {path}: end that one, or choose another folder.")
            sleep(0.02)  # one whose parent was killed just now notices that soon
        self._announcement.unlink(missing_ok=True)  # of one that was killed

    @property
    def _announcement(self) -> Path:
        return self.path / "control.json"

    @property
    def state(self) -> Path:
        """Where the company is kept; it holds secrets, so nobody else may read it from its first byte on."""
        file = self.path / "state.db"
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        return file

    def token(self) -> str:
        """What the control API asks for: made at the first start, the same from then on."""
        return self._kept("token")

    def service_key(self) -> str:
        """An API key for a service that takes it from here."""
        return self._kept("service-key")

    def announce(self, facts: Mapping[str, object]) -> None:
        """Say in control.json where the emulator is, as long as it runs."""
        self._write(self._announcement, json.dumps(facts, indent=2))

    def close(self) -> None:
        """It runs no more."""
        self._announcement.unlink(missing_ok=True)
        os.close(self._lock)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _kept(self, name: str) -> str:
        file = self.path / name
        with contextlib.suppress(FileNotFoundError):
            if len(kept := file.read_text().strip()) >= 32:
                return kept
        new = demo.new_key()
        self._write(file, new)
        return new

    @staticmethod
    def _take(path: Path) -> None:
        """Make it, or use one that is ours and private already: others' folders stay as they are."""
        try:
            path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not path.is_dir() or path.stat().st_mode & 0o077:
                raise ConfigurationError(f"{path} is no folder that only you can read: chmod 700 it, or choose another.") from None
            if any(path.iterdir()) and not (path / "lock").exists():
                raise ConfigurationError(f"{path} holds other things: choose a folder of the emulator's own.") from None

    @staticmethod
    def _write(file: Path, text: str) -> None:
        """Whole or not at all, and never readable by others."""
        temporary = file.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text + "\n")
        os.replace(temporary, file)
