-- Candles of the table `candle_revisions` that were known at $as_of (ms), each in its newest revision then, oldest first.
-- available_at is when that revision could be known.
SELECT
    series,
    epoch_ms(open_time) AS open_time_ms,
    open,
    high,
    low,
    close,
    volume,
    epoch_ms(available_at) AS available_at_ms
FROM candle_revisions
WHERE epoch_ms(available_at) <= $as_of
QUALIFY row_number() OVER (PARTITION BY series, open_time ORDER BY revision DESC) = 1
ORDER BY series, open_time
