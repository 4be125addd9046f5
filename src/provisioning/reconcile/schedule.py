"""When organizations are reconciled without anybody asking: at a moment of the interval that is each organization's own."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

_START = datetime(2026, 1, 1, tzinfo=UTC)


def due(last_requests: Mapping[str, datetime | None], interval: timedelta, now: datetime) -> list[str]:
    """The organizations whose run is due, those that never had one first. By organization: when a run was last asked for."""
    found = [
        (last or _START, organization_id)
        for organization_id, last in last_requests.items()
        if last is None or last < now - (now - _START + interval * _phase(organization_id)) % interval
    ]
    return [organization_id for _, organization_id in sorted(found)]


def _phase(organization_id: str) -> float:
    """A number from 0 to 1 that spreads organizations evenly, the same in every process."""
    return int.from_bytes(blake2b(organization_id.encode(), digest_size=4).digest()) / 2**32
