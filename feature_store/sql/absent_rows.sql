-- What recordings lack: `recorded` has (file, exchange, symbol, timeframe, step_ms, ts). A symbol is expected from its
-- first to its last candle in each file. An outage is what all symbols lack that are expected then, two at least.
WITH expected AS (
    SELECT DISTINCT exchange, symbol, timeframe, unnest(range(first_ts, last_ts + step_ms, step_ms)) AS ts
    FROM (
        SELECT file, exchange, symbol, timeframe, step_ms, min(ts) AS first_ts, max(ts) AS last_ts
        FROM recorded
        GROUP BY ALL
    )
),

absent AS (
    SELECT * FROM expected ANTI JOIN recorded USING (exchange, symbol, timeframe, ts)
),

lacking AS (
    SELECT exchange, timeframe, ts, count(*) AS symbols FROM absent GROUP BY ALL
),

listed AS (
    SELECT exchange, timeframe, ts, count(*) AS symbols
    FROM expected SEMI JOIN lacking USING (exchange, timeframe, ts)
    GROUP BY ALL
)

SELECT a.exchange, a.symbol, a.timeframe, a.ts, listed.symbols >= 2 AND lacking.symbols = listed.symbols AS is_outage
FROM absent AS a
INNER JOIN lacking USING (exchange, timeframe, ts)
INNER JOIN listed USING (exchange, timeframe, ts)
ORDER BY a.exchange, a.timeframe, a.symbol, a.ts
