"""What an action is: a class whose fields are what it takes, known by its name."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from provisioning.emulator.parts import Parts

Json = dict[str, object]


def _address(text: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError("should look like jane@example.com")
    return text


Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[Words, Field(min_length=1)]
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
