"""What every shape that goes over HTTP has in common."""

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A request's or an answer's shape. Its errors never quote what was put in: that may be somebody's data."""

    model_config = ConfigDict(hide_input_in_errors=True)
