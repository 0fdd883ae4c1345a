-- The candles of the recorded Parquet files $paths, with the file that each is in and the length of a candle.
SELECT
    filename AS file,
    exchange,
    symbol,
    timeframe,
    CAST(ts AS BIGINT) AS ts,
    open,
    high,
    low,
    close,
    volume,
    CASE timeframe
        WHEN '1m' THEN 60000 WHEN '5m' THEN 300000 WHEN '15m' THEN 900000
        WHEN '1h' THEN 3600000 WHEN '4h' THEN 14400000 WHEN '1d' THEN 86400000
    END AS step_ms
FROM read_parquet($paths, union_by_name = true, filename = true)
