"""The operations of the API as its own description has them, for tests that ask for every one."""

import json
import re
from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient


@dataclass(frozen=True)
class Operation:
    """An operation of the API, a body for it, and what its query may say as a text."""

    method: str
    path: str
    body: dict[str, Any] | None
    texts: tuple[str, ...]


def operations_of(client: TestClient) -> list[Operation]:
    """Every one of the description."""
    described = client.get("/openapi.json").json()
    return [
        Operation(method, path, _example(described, operation), _texts(operation))
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]


def _example(described: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    """A body as the description shows one."""
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    names = re.findall(r"#/components/schemas/(\w+)", json.dumps(schema))
    if not names:
        return None
    properties = described["components"]["schemas"][names[0]]["properties"]
    return {name: each["examples"][0] for name, each in properties.items() if "examples" in each}


def _texts(operation: dict[str, Any]) -> tuple[str, ...]:
    asked = {each["name"]: each["schema"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    return tuple(name for name, schema in asked.items() if any(kind.get("type") == "string" for kind in (schema, *schema.get("anyOf", ()))))
