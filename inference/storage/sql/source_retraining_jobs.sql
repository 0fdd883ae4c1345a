-- Retraining jobs in the words of other systems; those that another took the place of before they began are none there.
CREATE VIEW source_retraining_jobs AS
SELECT
    job_id,
    upper(type) AS type,
    CASE status
        WHEN 'queued' THEN 'PENDING'
        WHEN 'succeeded' THEN 'SUCCESS'
        WHEN 'failed' THEN 'FAILED'
        ELSE 'RUNNING'
    END AS status,
    models,
    started_at,
    completed_at,
    metrics,
    error_message
FROM retraining_jobs
WHERE status <> 'withdrawn'
