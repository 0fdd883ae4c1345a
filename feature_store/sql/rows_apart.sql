-- Rows that one side has and the other lacks, to the bit: `recorded`, and `stored` from the files of a lake.
WITH left_side AS (
    SELECT exchange, symbol, timeframe, ts, open, high, low, close, volume FROM recorded
),

right_side AS (
    SELECT exchange, symbol, timeframe, epoch_ms(open_time) AS ts, open, high, low, close, volume FROM stored
)

SELECT
    (SELECT count(*) FROM (SELECT * FROM right_side EXCEPT SELECT * FROM left_side)) AS invented,
    (SELECT count(*) FROM (SELECT * FROM left_side EXCEPT SELECT * FROM right_side)) AS lost
