"""The folder `.provisioning`: all that `dev` makes up on a developer's machine, where the other commands find it, too.

The environment and .env come first; with credentials of a real Scalekit in them nothing of a local one is used.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from provisioning.cli.emulator.presence import ENDS_WITHIN, absence
from provisioning.errors import ConfigurationError
from provisioning.settings import VARIABLES, Settings, demo, load_settings

FOLDER = Path(".provisioning")
MIN_CHARACTERS = 32  # of a key or secret: what is shorter is damaged, and made anew
EMULATOR = FOLDER / "emulator"
_ENVIRONMENT = FOLDER / "env"


def clear() -> None:
    """Forget all of it. Raises ConfigurationError, also while somebody uses it."""
    with absence(EMULATOR, ENDS_WITHIN) as absent:  # one whose `dev` was killed just now notices that soon
        if not absent:
            raise ConfigurationError(f"A local Scalekit is running in {EMULATOR}: end it first.")
        try:
            shutil.rmtree(FOLDER)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigurationError(f"Cannot remove {FOLDER}: {error.strerror or error}.") from error


def program() -> str:
    """What was typed to call this program, to be typed again with other arguments."""
    if sys.argv[1:2] != ["--local"]:
        return "provisioning"
    return "./run" if Path("run").exists() else "provisioning --local"


def join() -> None:
    """Use what the last `dev` wrote, but for what the environment or .env say by now. Raises ConfigurationError."""
    try:
        lines = _ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    kept, settings = dict(line.split("=", 1) for line in lines), load_settings()
    if "SCALEKIT_ENVIRONMENT_URL" not in kept or not has_scalekit(settings):
        os.environ.update(unset(settings, kept))


def use(environment: Mapping[str, str]) -> None:
    """Set these variables here, and write them for `join`. Raises ConfigurationError."""
    os.environ.update(environment)
    _write(_ENVIRONMENT, "".join(f"{name}={value}\n" for name, value in environment.items()))


def unset(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Those of `environment` that nobody has set. (What is no setting of ours is for libraries, and always there.)"""
    ours = {name: VARIABLES[name].attribute for name in environment if name in VARIABLES}
    return {name: value for name, value in environment.items() if ours.get(name) not in settings.model_fields_set}


def has_scalekit(settings: Settings) -> bool:
    """Whether somebody configured a real one: then there is no need for another."""
    return any((settings.scalekit_environment_url, settings.scalekit_client_id, settings.scalekit_client_secret))


def api_key() -> str:
    """An API key that is made once. Raises ConfigurationError."""
    return _kept(FOLDER / "api-key", demo.new_key())


def webhook_secret() -> str:
    """A signing secret that is made once. Raises ConfigurationError."""
    return _kept(FOLDER / "webhook-secret", demo.new_webhook_secret())


def opened(file: Path) -> BinaryIO:
    """`file`, to be written to at its end by another process. Raises ConfigurationError."""
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        return open(file, "ab", opener=private)
    except OSError as error:
        raise ConfigurationError(f"Cannot write {file}: {error.strerror}. Start it where you may write.") from error


def private(path: str, flags: int) -> int:
    """An opener that makes files which only their owner may read, from their first byte on."""
    return os.open(path, flags, 0o600)


def _kept(file: Path, new: str) -> str:
    with suppress(FileNotFoundError, UnicodeDecodeError):
        if len(kept := file.read_text(encoding="utf-8").strip()) >= MIN_CHARACTERS:
            return kept
    _write(file, f"{new}\n")
    return new


def _write(file: Path, text: str) -> None:
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        file.unlink(missing_ok=True)
        with open(file, "x", encoding="utf-8", opener=private) as stream:
            stream.write(text)
    except OSError as error:
        raise ConfigurationError(f"Cannot write {file}: {error.strerror}. Start it where you may write.") from error
