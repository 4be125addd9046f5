-- transaction_created.sql for :batch people at once, set-based: the honest upper limit of what a batch can reach. No value is sent twice, none
-- is parsed, and nothing is computed from what is read.
\set low :first + :number * :batch
\set high :low + :batch - 1
\set number :number + 1
BEGIN;
INSERT INTO deliveries (webhook_id, event_id, type, organization_id, subject_id, occurred_at, received_at, processed_at, outcome, attempts, payload)
    SELECT 'msg_created_' || person, 'evt_created_' || person, 'organization.directory.user_created', :organization, 'diruser_118462867' || person,
           :occurred_at, now(), now(), 'processed', 1, :payload
    FROM generate_series(:low::bigint, :high::bigint) AS person ON CONFLICT (webhook_id) DO NOTHING RETURNING webhook_id;
SELECT pg_advisory_xact_lock_shared(hashtextextended(:organization, 0));
SELECT complete_as_of, has_erased FROM organizations WHERE id = :organization;
SELECT id, name, deleted, role FROM groups LEFT JOIN group_roles ON group_roles.organization_id = groups.organization_id AND group_id = id
    WHERE groups.organization_id = :organization;
SELECT pg_advisory_xact_lock(name)
    FROM (SELECT hashtextextended(reason || person, 0) AS name FROM generate_series(:low::bigint, :high::bigint) AS person,
          unnest(ARRAY['email', 'external_id']) AS reason ORDER BY 1) AS wanted;
SELECT user_id, registers FROM generate_series(:low::bigint, :high::bigint) AS person
    JOIN directory_users ON organization_id = :organization AND id = 'diruser_118462867' || person ORDER BY id FOR NO KEY UPDATE OF directory_users;
SELECT id FROM generate_series(:low::bigint, :high::bigint) AS person
    JOIN users ON organization_id = :organization AND email_key = 'jane.doe.' || person || '@example.com'
    UNION SELECT user_id FROM generate_series(:low::bigint, :high::bigint) AS person
    JOIN directory_users ON organization_id = :organization AND external_id = '00u1a2b3c4d' || person;
INSERT INTO users (organization_id, id, email, email_key, name, given_name, family_name, preferred_username, active, attributes, created_at,
                   updated_at, activated_at)
    SELECT :organization, 'usr_01a205a49f7fcac00e226a4' || person, 'jane.doe.' || person || '@example.com',
           'jane.doe.' || person || '@example.com', 'Jane' || person || ' Doe' || person, 'Jane' || person, 'Doe' || person,
           'jane.doe.' || person || '@example.com', true, :attributes, now(), now(), now()
    FROM generate_series(:low::bigint, :high::bigint) AS person;
INSERT INTO directory_users (organization_id, id, user_id, external_id, email, active, deleted, registers, created_at, updated_at)
    SELECT :organization, 'diruser_118462867' || person, 'usr_01a205a49f7fcac00e226a4' || person, '00u1a2b3c4d' || person,
           'jane.doe.' || person || '@example.com', true, false, :registers, now(), now()
    FROM generate_series(:low::bigint, :high::bigint) AS person;
INSERT INTO memberships (organization_id, directory_user_id, group_id, user_id, since)
    SELECT :organization, 'diruser_118462867' || person, 'dirgroup_1184628670000000' || (10 + (person + step) % 50), 'usr_01a205a49f7fcac00e226a4' || person, now()
    FROM generate_series(:low::bigint, :high::bigint) AS person, unnest(ARRAY[0, 7, 19]) AS step;
INSERT INTO role_grants (organization_id, user_id, role, source, since)
    SELECT :organization, 'usr_01a205a49f7fcac00e226a4' || person, 'member', 'diruser_118462867' || person, now()
    FROM generate_series(:low::bigint, :high::bigint) AS person;
SELECT pg_advisory_xact_lock_shared(1884245857, (last_value % 2147483648)::int) FROM changes_position;
INSERT INTO changes (organization_id, position, type, user_id, group_id, role, after, cause, cause_id, occurred_at, recorded_at)
    SELECT :organization, nextval('changes_position'), type, 'usr_01a205a49f7fcac00e226a4' || person, 'dirgroup_1184628670000000' || (10 + (person + step) % 50), role,
           after::json, 'delivery', 'msg_created_' || person, :occurred_at, now()
    FROM generate_series(:low::bigint, :high::bigint) AS person,
         (VALUES ('user.created', NULL::int, NULL, :shown), ('membership.added', 0, NULL, NULL), ('membership.added', 7, NULL, NULL),
                 ('membership.added', 19, NULL, NULL), ('role.granted', NULL, 'member', NULL)) AS happened (type, step, role, after);
COMMIT;
