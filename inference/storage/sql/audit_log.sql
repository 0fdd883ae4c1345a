-- Who did what to what, and why, under the digest of its entry in the journal.
CREATE VIEW audit_log AS
SELECT seq, happened_at, actor, event_type AS action, subject, reason, digest
FROM audit
