"""How the control API shows things, as JSON: for the page, the commands and scripts."""

import json
from typing import Any

from provisioning.emulator.jobs import Job
from provisioning.emulator.parts import Parts
from provisioning.emulator.records import Delivery, Directory, Group, Organization, User, moment
from provisioning.emulator.scenarios import SCENARIOS

Json = dict[str, object]


def state(parts: Parts) -> Json:
    """Everything but the lists."""
    return {
        "version": version(parts),
        "organizations": [organization(parts, each) for each in parts.company.organizations()],
        "endpoint": endpoint(parts),
        "switches": parts.deliveries.switches.model_dump(),
        "usual": parts.deliveries.usual.model_dump(),
        "faults": parts.faults.current(),
        "deliveries": parts.deliveries.counts(),
        "job": job(parts.jobs.latest) if parts.jobs.latest else None,
        "service": parts.service.url,
        "scenarios": [{"name": name, "what": scenario.what} for name, scenario in SCENARIOS.items()],
        **portal(parts),
    }


def version(parts: Parts) -> int:
    """A number that rises whenever a list may have changed."""
    return parts.company.version + parts.deliveries.version


def organization(parts: Parts, each: Organization) -> Json:
    """A customer with its directories."""
    directories = [directory(parts, one) for one in parts.company.directories(each.id)]
    return {"id": each.id, "name": each.name, "external_id": each.external_id, "sso": each.sso, "directories": directories}


def directory(parts: Parts, each: Directory) -> Json:
    """`users` counts whom Scalekit has."""
    users = [user for user in parts.company.users(each.id) if user.listed]
    return {
        "id": each.id,
        "organization_id": each.organization_id,
        "provider": each.provider,
        "enabled": each.enabled,
        "users": len(users),
        "active": sum(user.active for user in users),
        "groups": len(parts.company.groups(each.id)),
        "roles": each.roles,
        "default_role": each.default_role,
    }


def user(parts: Parts, each: User) -> Json:
    """A person, with what Scalekit says of groups and roles. (One who was purged has none.)"""
    try:
        groups = {group.id: group.name for group in parts.company.groups(each.directory_id)}
        roles = parts.company.roles_of(each)
    except KeyError:
        groups, roles = {}, []
    return {
        **each.model_dump(exclude={"groups", "updated_at"}),
        "groups": [{"id": group, "name": groups[group]} for group in each.groups if group in groups],
        "roles": roles,
        "updated_at": moment(each.updated_at),
    }


def group(parts: Parts, each: Group) -> Json:
    """`role` is what it gives, if anything."""
    return {
        **each.model_dump(exclude={"updated_at"}),
        "members": len(parts.company.members(each.id)),
        "role": parts.company.directory(each.directory_id).roles.get(each.id),
        "updated_at": moment(each.updated_at),
    }


def delivery(parts: Parts, each: Delivery) -> dict[str, Any]:
    """With the attempts; `subject` is whom or what it is about, in words."""
    return {**each.model_dump(exclude={"round"}), "subject": _subject(parts, each)}


def job(each: Job) -> Json:
    """How far it is."""
    return {name: getattr(each, name) for name in ("name", "state", "step", "done", "total", "error")}


def endpoint(parts: Parts) -> Json:
    """Where webhooks go; never with what they are signed."""
    return {"url": parts.endpoint.url, "rotating": parts.endpoint.rotating}


def portal(parts: Parts) -> Json:
    """How the admin portal behaves."""
    return {"dialect": parts.portal.dialect, "embedding_origins": list(parts.portal.embedding_origins)}


def _subject(parts: Parts, each: Delivery) -> str | None:
    """As the event says, which outlasts whom it is about."""
    data = json.loads(parts.company.event(each.event_id).body)["data"]
    return next((data[name] for name in ("email", "display_name", "provider") if name in data), None)
