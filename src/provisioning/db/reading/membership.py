"""Who is in which group, effectively: the one place where the rule is said in SQL (design.md, *From directory users to users*)."""

from sqlalchemy import and_, literal, not_, or_, select

from provisioning.db.models import directories, directory_users, groups, memberships, users

_beside = directory_users.alias("beside")
_home = directories.alias("home")
# Not EXISTS: PostgreSQL would read the whole organization into a hash for it, even for one page.
_somebody_of_an_enabled_directory = (
    select(literal(1))
    .select_from(_beside.outerjoin(_home, and_(_home.c.organization_id == _beside.c.organization_id, _home.c.id == _beside.c.directory_id)))
    .where(
        _beside.c.organization_id == directory_users.c.organization_id,
        _beside.c.user_id == directory_users.c.user_id,
        _home.c.enabled.is_not(False),
    )
    .limit(1)
    .correlate(directory_users)
    .scalar_subquery()
)

with_directory = directory_users.outerjoin(
    directories,
    and_(directories.c.organization_id == directory_users.c.organization_id, directories.c.id == directory_users.c.directory_id),
)
# Of a disabled directory somebody counts only when nobody behind the same user is of another one (accounts.counting).
lets_in = and_(
    directory_users.c.active,
    not_(directory_users.c.deleted),
    or_(directories.c.enabled.is_not(False), _somebody_of_an_enabled_directory.is_(None)),
)

# Several memberships of one user in one group are possible, one for each directory user behind it.
with_membership = (
    with_directory.join(
        memberships,
        and_(memberships.c.organization_id == directory_users.c.organization_id, memberships.c.directory_user_id == directory_users.c.id),
    )
    .join(users, and_(users.c.organization_id == memberships.c.organization_id, users.c.id == memberships.c.user_id))
    .join(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
)
effective = and_(users.c.active, not_(groups.c.deleted), lets_in)
