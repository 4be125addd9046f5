"""What goes wrong, and what is sent again."""

from typing import Literal, Self

from pydantic import ConfigDict, model_validator

from provisioning.emulator import faults, shapes
from provisioning.emulator.actions.action import Action, Json, Text
from provisioning.emulator.parts import Parts


class Switches(Action):
    """How deliveries go wrong; what is left out stays as it is. The fields are those of the emulator's own Switches."""

    model_config = ConfigDict(extra="allow")

    def do(self, parts: Parts) -> Json:
        return parts.deliveries.switch(self.model_extra or {}).model_dump()


class Reset(Action):
    """Deliveries and API as at the start: nothing goes wrong."""

    def do(self, parts: Parts) -> Json:
        parts.faults.clear()
        return parts.deliveries.switch(parts.deliveries.usual.model_dump()).model_dump()


class Fault(Action):
    """How the API goes wrong at one of its doors; null for not at all."""

    door: faults.Door
    fault: faults.Fault | None

    @model_validator(mode="after")
    def _known_there(self) -> Self:
        faults.check(self.door, self.fault)
        return self

    def do(self, parts: Parts) -> Json:
        parts.faults.set(self.door, self.fault)
        return {"door": self.door, "fault": self.fault}


class RotateSecret(Action):
    """begin: deliveries are signed with the old secret and the new one; finish: with the new one only."""

    step: Literal["begin", "finish"]

    def do(self, parts: Parts) -> Json:
        if self.step == "begin":
            parts.endpoint.begin_rotation()
        else:
            parts.endpoint.finish_rotation()
        return shapes.endpoint(parts)


class Resend(Action):
    """Begin again with these deliveries, or with all that were given up."""

    deliveries: list[Text] | None = None

    def do(self, parts: Parts) -> Json:
        return {"deliveries": parts.deliveries.resend(self.deliveries)}
