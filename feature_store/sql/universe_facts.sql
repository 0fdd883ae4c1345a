-- What each series had traded by each moment, from what was known then, each candle in its newest revision then.
-- `candle_revisions` has (series, open_time_ms, close, volume, available_at_ms, revision). `moments` has (moment_ms,
-- end_ms): the last candle that could be known at moment_ms closes at end_ms. $bucket is an hour, or a longer candle.
-- Volume is what changed hands in the 24 hours to end_ms; liquidity the median hour of the 7 days to end_ms, where an
-- hour without a candle counts as nothing. Sums are of whole millionths, so that no order of rows changes a bit.
WITH known AS (
    SELECT
        m.moment_ms,
        m.end_ms,
        c.series,
        c.open_time_ms,
        arg_max(least(c.close * c.volume, 1e24), c.revision) AS notional
    FROM moments AS m
    INNER JOIN candle_revisions AS c
        ON c.open_time_ms >= m.end_ms - 604800000 AND c.open_time_ms < m.end_ms AND c.available_at_ms <= m.moment_ms
    GROUP BY ALL
),

traded AS (
    SELECT
        moment_ms,
        series,
        max(open_time_ms) AS last_open_ms,
        coalesce(
            sum(round(notional * 1000000)::HUGEINT) FILTER (WHERE open_time_ms >= end_ms - 86400000), 0
        )::DOUBLE / 1000000 AS volume_24h
    FROM known
    GROUP BY ALL
),

by_hour AS (
    SELECT
        moment_ms,
        series,
        (open_time_ms - (end_ms - 604800000)) // $bucket AS bucket,
        sum(round(notional * 1000000)::HUGEINT)::DOUBLE / 1000000 / ($bucket / 3600000) AS notional
    FROM known
    GROUP BY ALL
),

every_hour AS (
    SELECT moment_ms, series, unnest(range(604800000 // $bucket)) AS bucket
    FROM traded
),

liquid AS (
    SELECT moment_ms, series, median(coalesce(by_hour.notional, 0)) AS liquidity
    FROM every_hour
    LEFT JOIN by_hour USING (moment_ms, series, bucket)
    GROUP BY ALL
)

SELECT moment_ms, series, last_open_ms, volume_24h, liquidity
FROM traded
INNER JOIN liquid USING (moment_ms, series)
ORDER BY moment_ms, series
