-- For each row of `decisions` (row, symbol, decided_at_ms): which row of `observations` (row, symbol, event_time_ms,
-- available_at_ms) was the newest one known then, NULL where none was.
-- What was known at a moment is what had arrived by then; of that, the latest event counts, and of the same event its
-- latest correction. A correction of an older event than one that had already arrived never becomes the newest.
WITH arrived AS (
    SELECT *
    FROM observations
    WHERE available_at_ms <= $as_of
    QUALIFY event_time_ms >= max(event_time_ms) OVER (
        PARTITION BY symbol ORDER BY available_at_ms, event_time_ms, row
        ROWS UNBOUNDED PRECEDING
    )
),

newest AS (
    SELECT *
    FROM arrived
    QUALIFY row_number() OVER (PARTITION BY symbol, available_at_ms ORDER BY event_time_ms DESC, row DESC) = 1
)

SELECT d.row, n.row AS observation
FROM decisions AS d
ASOF LEFT JOIN newest AS n ON d.symbol = n.symbol AND d.decided_at_ms >= n.available_at_ms
ORDER BY d.row
