-- Recorded candles of the file $path, series by series, oldest first.
SELECT exchange, symbol, timeframe, CAST(ts AS BIGINT) AS ts, open, high, low, close, volume
FROM read_csv_auto($path)
ORDER BY exchange, symbol, timeframe, ts
