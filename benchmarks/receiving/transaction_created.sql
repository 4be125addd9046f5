-- What one user_created with three groups and a role needs to be right, in a transaction of its own: what the service does for a whole batch.
-- Everybody is somebody new. :payload, :registers, :attributes and :shown are what the service itself wrote for such an event.
\set person :first + :number * :clients + :client_id
\set number :number + 1
\set a 10 + :person % 50
\set b 10 + (:person + 7) % 50
\set c 10 + (:person + 19) % 50
BEGIN;
INSERT INTO deliveries (webhook_id, event_id, type, organization_id, subject_id, occurred_at, received_at, processed_at, outcome, attempts, payload)
    VALUES ('msg_created_' || :person, 'evt_created_' || :person, 'organization.directory.user_created', :organization, 'diruser_118462867' || :person,
            :occurred_at, now(), now(), 'processed', 1, :payload)
    ON CONFLICT (webhook_id) DO NOTHING RETURNING webhook_id;
-- the organization: no reconcile sets its mark meanwhile
SELECT pg_advisory_xact_lock_shared(hashtextextended(:organization, 0));
SELECT complete_as_of, has_erased FROM organizations WHERE id = :organization;
-- the groups: known, not deleted, and the roles that they give
SELECT id, name, deleted, role FROM groups LEFT JOIN group_roles ON group_roles.organization_id = groups.organization_id AND group_id = id
    WHERE groups.organization_id = :organization AND id IN ('dirgroup_1184628670000000' || :a, 'dirgroup_1184628670000000' || :b, 'dirgroup_1184628670000000' || :c);
-- the person: nobody else makes it, or an account with the same e-mail or upstream id, meanwhile; and who has these already
SELECT pg_advisory_xact_lock(name)
    FROM (SELECT unnest(ARRAY[hashtextextended('email' || :person, 0), hashtextextended('external_id' || :person, 0)]) AS name ORDER BY 1) AS wanted;
SELECT user_id, registers FROM directory_users WHERE organization_id = :organization AND id = 'diruser_118462867' || :person FOR NO KEY UPDATE;
SELECT id FROM users WHERE organization_id = :organization AND email_key = 'jane.doe.' || :person || '@example.com'
    UNION SELECT user_id FROM directory_users WHERE organization_id = :organization AND external_id = '00u1a2b3c4d' || :person;
-- the rows
INSERT INTO users (organization_id, id, email, email_key, name, given_name, family_name, preferred_username, active, attributes, created_at,
                   updated_at, activated_at)
    VALUES (:organization, 'usr_01a205a49f7fcac00e226a4' || :person, 'jane.doe.' || :person || '@example.com',
            'jane.doe.' || :person || '@example.com', 'Jane' || :person || ' Doe' || :person, 'Jane' || :person, 'Doe' || :person,
            'jane.doe.' || :person || '@example.com', true, :attributes, now(), now(), now());
INSERT INTO directory_users (organization_id, id, user_id, external_id, email, active, deleted, registers, created_at, updated_at)
    VALUES (:organization, 'diruser_118462867' || :person, 'usr_01a205a49f7fcac00e226a4' || :person, '00u1a2b3c4d' || :person,
            'jane.doe.' || :person || '@example.com', true, false, :registers, now(), now());
INSERT INTO memberships (organization_id, directory_user_id, group_id, user_id, since)
    VALUES (:organization, 'diruser_118462867' || :person, 'dirgroup_1184628670000000' || :a, 'usr_01a205a49f7fcac00e226a4' || :person, now()),
           (:organization, 'diruser_118462867' || :person, 'dirgroup_1184628670000000' || :b, 'usr_01a205a49f7fcac00e226a4' || :person, now()),
           (:organization, 'diruser_118462867' || :person, 'dirgroup_1184628670000000' || :c, 'usr_01a205a49f7fcac00e226a4' || :person, now());
INSERT INTO role_grants (organization_id, user_id, role, source, since)
    VALUES (:organization, 'usr_01a205a49f7fcac00e226a4' || :person, 'member', 'diruser_118462867' || :person, now());
-- the change log: announced before a position is taken, so that readers miss nothing
SELECT pg_advisory_xact_lock_shared(1884245857, (last_value % 2147483648)::int) FROM changes_position;
INSERT INTO changes (organization_id, position, type, user_id, group_id, role, after, cause, cause_id, occurred_at, recorded_at)
    SELECT :organization, nextval('changes_position'), type, 'usr_01a205a49f7fcac00e226a4' || :person, group_id, role, after::json, 'delivery',
           'msg_created_' || :person, :occurred_at, now()
    FROM (VALUES ('user.created', NULL, NULL, :shown),
                 ('membership.added', 'dirgroup_1184628670000000' || :a, NULL, NULL),
                 ('membership.added', 'dirgroup_1184628670000000' || :b, NULL, NULL),
                 ('membership.added', 'dirgroup_1184628670000000' || :c, NULL, NULL),
                 ('role.granted', NULL, 'member', NULL)) AS happened (type, group_id, role, after);
COMMIT;
