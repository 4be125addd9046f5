"""Whom a directory user lets into which group, if the user is active: the one place where the rule is said in SQL.

See design.md, *From directory users to users*.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal, not_, or_, select

from provisioning.db.models import directories, directory_users, groups, memberships


def there_is(rows: Select[*tuple[Any, ...]]) -> ColumnElement[bool]:
    """Return EXISTS as a look-up for each row. EXISTS itself PostgreSQL may turn into a join that reads the organization for one page."""
    return rows.limit(1).scalar_subquery().is_not(None)


_beside = directory_users.alias("beside")
_home = directories.alias("home")
_somebody_of_an_enabled_directory = there_is(
    select(literal(1))
    .select_from(_beside.outerjoin(_home, and_(_home.c.organization_id == _beside.c.organization_id, _home.c.id == _beside.c.directory_id)))
    .where(
        _beside.c.organization_id == directory_users.c.organization_id,
        _beside.c.user_id == directory_users.c.user_id,
        _home.c.enabled.is_not(False),
    )
    .correlate(directory_users)
)

with_directory = directory_users.outerjoin(
    directories,
    and_(directories.c.organization_id == directory_users.c.organization_id, directories.c.id == directory_users.c.directory_id),
)
# Of a disabled directory somebody counts only when nobody behind the same user is of another one (accounts.counting).
lets_in = and_(
    directory_users.c.active,
    not_(directory_users.c.deleted),
    or_(directories.c.enabled.is_not(False), not_(_somebody_of_an_enabled_directory)),
)

# Several memberships of one user in one group are possible, one for each directory user behind it.
with_membership = with_directory.join(
    memberships,
    and_(memberships.c.organization_id == directory_users.c.organization_id, memberships.c.directory_user_id == directory_users.c.id),
).join(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
effective = and_(not_(groups.c.deleted), lets_in)
