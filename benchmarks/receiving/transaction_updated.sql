-- What one user_updated with another name and the same three groups needs to be right, in a transaction of its own.
-- Everybody that transaction_created.sql made, once.
\set person :first + :number * :clients + :client_id
\set number :number + 1
\set a 10 + :person % 50
\set b 10 + (:person + 7) % 50
\set c 10 + (:person + 19) % 50
BEGIN;
INSERT INTO deliveries (webhook_id, event_id, type, organization_id, subject_id, occurred_at, received_at, processed_at, outcome, attempts, payload)
    VALUES ('msg_updated_' || :person, 'evt_updated_' || :person, 'organization.directory.user_updated', :organization, 'diruser_118462867' || :person,
            :occurred_at, now(), now(), 'processed', 1, :payload)
    ON CONFLICT (webhook_id) DO NOTHING RETURNING webhook_id;
SELECT pg_advisory_xact_lock_shared(hashtextextended(:organization, 0));
SELECT complete_as_of, has_erased FROM organizations WHERE id = :organization;
SELECT id, name, deleted, role FROM groups LEFT JOIN group_roles ON group_roles.organization_id = groups.organization_id AND group_id = id
    WHERE groups.organization_id = :organization AND id IN ('dirgroup_1184628670000000' || :a, 'dirgroup_1184628670000000' || :b, 'dirgroup_1184628670000000' || :c);
-- the person, its user, and whoever else is behind that user
SELECT user_id, registers AS old_registers FROM directory_users WHERE organization_id = :organization AND id = 'diruser_118462867' || :person FOR NO KEY UPDATE \gset
SELECT * FROM users WHERE organization_id = :organization AND id = :user_id FOR NO KEY UPDATE;
SELECT id, registers FROM directory_users WHERE organization_id = :organization AND user_id = :user_id;
-- the rows
UPDATE directory_users SET registers = :registers, updated_at = now() WHERE organization_id = :organization AND id = 'diruser_118462867' || :person;
UPDATE users SET name = 'Joan' || :person || ' Doe' || :person, given_name = 'Joan' || :person, attributes = :attributes, updated_at = now()
    WHERE organization_id = :organization AND id = :user_id;
SELECT pg_advisory_xact_lock_shared(1884245857, (last_value % 2147483648)::int) FROM changes_position;
INSERT INTO changes (organization_id, position, type, user_id, before, after, cause, cause_id, occurred_at, recorded_at)
    VALUES (:organization, nextval('changes_position'), 'user.updated', :user_id, :before, :shown, 'delivery', 'msg_updated_' || :person,
            :occurred_at, now());
COMMIT;
