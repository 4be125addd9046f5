"""What an action is: a class whose fields are what it takes, known by its name."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from provisioning.emulator.parts import Parts

Json = dict[str, object]


def _address(text: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError("should look like jane@example.com")
    return text


def _one_line(text: str) -> str:
    text = text.strip()
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):  # C0 and DEL: an event with NUL is none
        raise ValueError("should be one line, without control characters")
    return text


def _something(text: str) -> str:
    if not text:
        raise ValueError("should not be empty")
    return text


Words = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
Text = Annotated[Words, AfterValidator(_something)]
Address = Annotated[Text, AfterValidator(_address)]
Reference = Text
Names = Annotated[tuple[Text, ...], Field(max_length=100)]


class Action(BaseModel):
    """Something to do. `name` is derived from the class: HireSomebody would be hire-somebody."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    named: ClassVar[dict[str, type["Action"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        Action.named[re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()] = cls

    def do(self, parts: Parts) -> Json:
        """Do it and return what it came to. Raises ProvisioningError, and then nothing has changed."""
        raise NotImplementedError
