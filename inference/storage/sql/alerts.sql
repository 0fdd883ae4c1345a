-- What somebody should look at.
CREATE VIEW alerts AS
SELECT seq, happened_at, event_type, trace_id, detail
FROM events
WHERE is_alert
