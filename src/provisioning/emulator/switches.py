"""How deliveries go wrong, and when they are tried again."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Seconds between attempts: the longest of Scalekit's documented schedules, 27.6 hours in all, which `retry_scale` shortens.
SCHEDULE = (0, 5, 300, 1800, 7200, 18_000, 36_000, 36_000)

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=3600)]


class Switches(BaseModel):
    """How deliveries go wrong; as it stands, they do not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duplicates: Annotated[Share, Field(description="The share of deliveries that are sent once more after they were answered.")] = 0
    reorder: Annotated[Seconds, Field(description="Each delivery is held back for a random time of up to so many seconds.")] = 0
    delay: Annotated[Seconds, Field(description="Each attempt is sent so many seconds late.")] = 0
    drop: Annotated[Share, Field(description="The share of attempts that are lost: half of them on their way, half with the answer.")] = 0
    retry_scale: Annotated[float, Field(gt=0, le=1, description="How much shorter the waits between attempts are than Scalekit's.")] = 0.001
    paused: Annotated[bool, Field(description="Nothing is sent.")] = False
    at_once: Annotated[int, Field(ge=1, le=64, description="How many deliveries are under way at a time.")] = 8
