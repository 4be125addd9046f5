"""Who is in which group, effectively: the one place where the rule is said in SQL (design.md, *From directory users to users*)."""

from sqlalchemy import and_, exists, not_, or_

from provisioning.db.models import directories, directory_users, groups, memberships, users

_beside = directory_users.alias("beside")
_home = directories.alias("home")

# A directory user of a disabled directory counts only when no directory user behind the same user is of another one (accounts.counting).
_counts = or_(
    directories.c.enabled.is_not(False),
    not_(
        exists()
        .select_from(
            _beside.outerjoin(_home, and_(_home.c.organization_id == _beside.c.organization_id, _home.c.id == _beside.c.directory_id))
        )
        .where(
            _beside.c.organization_id == directory_users.c.organization_id,
            _beside.c.user_id == directory_users.c.user_id,
            _home.c.enabled.is_not(False),
        )
    ),
)

# Memberships joined to all that decides whether they hold; several of one user in one group are possible.
memberships_joined = (
    memberships.join(
        directory_users,
        and_(
            directory_users.c.organization_id == memberships.c.organization_id,
            directory_users.c.id == memberships.c.directory_user_id,
        ),
    )
    .join(users, and_(users.c.organization_id == memberships.c.organization_id, users.c.id == memberships.c.user_id))
    .join(groups, and_(groups.c.organization_id == memberships.c.organization_id, groups.c.id == memberships.c.group_id))
    .outerjoin(
        directories,
        and_(
            directories.c.organization_id == directory_users.c.organization_id,
            directories.c.id == directory_users.c.directory_id,
        ),
    )
)
effective = and_(users.c.active, directory_users.c.active, not_(directory_users.c.deleted), not_(groups.c.deleted), _counts)
