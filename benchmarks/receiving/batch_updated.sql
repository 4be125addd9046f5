-- transaction_updated.sql for :batch people at once, set-based: everybody that batch_created.sql made, once.
\set low :first + :number * :batch
\set high :low + :batch - 1
\set number :number + 1
BEGIN;
INSERT INTO deliveries (webhook_id, event_id, type, organization_id, subject_id, occurred_at, received_at, processed_at, outcome, attempts, payload)
    SELECT 'msg_updated_' || person, 'evt_updated_' || person, 'organization.directory.user_updated', :organization, 'diruser_118462867' || person,
           :occurred_at, now(), now(), 'processed', 1, :payload
    FROM generate_series(:low::bigint, :high::bigint) AS person ON CONFLICT (webhook_id) DO NOTHING RETURNING webhook_id;
SELECT pg_advisory_xact_lock_shared(hashtextextended(:organization, 0));
SELECT complete_as_of, has_erased FROM organizations WHERE id = :organization;
SELECT id, name, deleted, role FROM groups LEFT JOIN group_roles ON group_roles.organization_id = groups.organization_id AND group_id = id
    WHERE groups.organization_id = :organization;
SELECT user_id, registers FROM generate_series(:low::bigint, :high::bigint) AS person
    JOIN directory_users ON organization_id = :organization AND id = 'diruser_118462867' || person ORDER BY id FOR NO KEY UPDATE OF directory_users;
SELECT users.* FROM generate_series(:low::bigint, :high::bigint) AS person
    JOIN users ON organization_id = :organization AND id = 'usr_01a205a49f7fcac00e226a4' || person ORDER BY id FOR NO KEY UPDATE OF users;
SELECT id, registers FROM generate_series(:low::bigint, :high::bigint) AS person
    JOIN directory_users ON organization_id = :organization AND user_id = 'usr_01a205a49f7fcac00e226a4' || person;
UPDATE directory_users SET registers = :registers, updated_at = now()
    FROM generate_series(:low::bigint, :high::bigint) AS person WHERE organization_id = :organization AND id = 'diruser_118462867' || person;
UPDATE users SET name = 'Joan' || person || ' Doe' || person, given_name = 'Joan' || person, attributes = :attributes, updated_at = now()
    FROM generate_series(:low::bigint, :high::bigint) AS person
    WHERE organization_id = :organization AND id = 'usr_01a205a49f7fcac00e226a4' || person;
SELECT pg_advisory_xact_lock_shared(1884245857, (last_value % 2147483648)::int) FROM changes_position;
INSERT INTO changes (organization_id, position, type, user_id, before, after, cause, cause_id, occurred_at, recorded_at)
    SELECT :organization, nextval('changes_position'), 'user.updated', 'usr_01a205a49f7fcac00e226a4' || person, :before, :shown, 'delivery',
           'msg_updated_' || person, :occurred_at, now()
    FROM generate_series(:low::bigint, :high::bigint) AS person;
COMMIT;
