"""What every shape that goes over HTTP has in common."""

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from provisioning import names


class Shape(BaseModel):
    """A request's or an answer's shape. Its errors never quote what was put in: that may be somebody's data."""

    model_config = ConfigDict(hide_input_in_errors=True)


def named_well(what: str) -> AfterValidator:
    """A validator of text that is to be a name; `what` it names begins the error's message, as in `A role`."""

    def check(name: str) -> str:
        if fault := names.fault(name):
            raise PydanticCustomError("name", "{what} {fault}", {"what": what, "fault": fault})
        return name

    return AfterValidator(check)
