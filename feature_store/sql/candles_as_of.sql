-- Closed candles of the lake files in $paths that were known at $as_of, each in its newest revision then, oldest first.
-- available_at is when that revision could be known.
SELECT
    exchange,
    symbol,
    timeframe,
    epoch_ms(open_time) AS open_time_ms,
    open,
    high,
    low,
    close,
    volume,
    epoch_ms(available_at) AS available_at_ms
FROM read_parquet($paths, hive_partitioning = TRUE)
WHERE epoch_ms(available_at) <= $as_of
QUALIFY row_number() OVER (PARTITION BY exchange, symbol, timeframe, open_time ORDER BY revision DESC) = 1
ORDER BY exchange, symbol, timeframe, open_time
