"""Everything that can be done to the emulator, by name; control.py serves it."""

from provisioning.emulator.actions import people, playing, portal, sending, structure
from provisioning.emulator.actions.action import Action
from provisioning.errors import NotFound

__all__ = ["Action", "parse", "people", "playing", "portal", "sending", "structure"]


def parse(name: str, body: bytes) -> Action:
    """The action `name` with what `body` says. Raises NotFound, pydantic's ValidationError."""
    kind = Action.named.get(name)
    if kind is None:
        raise NotFound(f"There is no action {name}: there are {', '.join(Action.named)}.")
    return kind.model_validate_json(body or b"{}")
