"""What the address of a page may ask for. A filter left empty in a form asks for nothing; one that is not known is refused."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints

PER_PAGE = 50

T = TypeVar("T")

Maybe = Annotated[T | None, BeforeValidator(lambda given: (given.strip() or None) if isinstance(given, str) else given)]
Text = Maybe[Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]+$")]]
Place = Maybe[Annotated[str, StringConstraints(max_length=2048)]]


class Asked(BaseModel):
    """What any page may be asked: what to say was done."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    did: Maybe[str] = None


class AskedList(Asked):
    """A page of a list: from which place on."""

    cursor: Place = None
