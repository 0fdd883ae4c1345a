-- The 49 features of the table or view `candles` (series, open_time_ms, open, high, low, close, volume).
-- The readable reference of features/kernel.py and its independent oracle: windows, and one recursive CTE for what
-- has no end of memory. NULL during warm-up. Series must have no gap of more than 64 candles.
-- ln(a / b) is written 2 * atanh((a - b) / (a + b)), which does not round a / b: near 1 that costs half of the digits.
WITH RECURSIVE

numbered AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY series ORDER BY open_time_ms) - 1 AS n,
        (high + low + close) / 3 AS typical
    FROM candles
),

moves AS (
    SELECT
        *,
        close - lag(close) OVER by_time AS change,
        2 * atanh((close - lag(close) OVER by_time) / (close + lag(close) OVER by_time)) AS log_return,
        greatest(
            high - low,
            abs(high - lag(close) OVER by_time),
            abs(low - lag(close) OVER by_time)
        ) AS true_range,
        high - lag(high) OVER by_time AS up,
        lag(low) OVER by_time - low AS down,
        typical - lag(typical) OVER by_time AS typical_change,
        volume * (close - lag(close) OVER by_time) / lag(close) OVER by_time AS vpt_step,
        max(high) OVER last_14 AS top_14,
        min(low) OVER last_14 AS bottom_14,
        max(high) OVER last_11 AS top_11,
        min(low) OVER last_11 AS bottom_11
    FROM numbered
    WINDOW
        by_time AS (PARTITION BY series ORDER BY n),
        last_11 AS (PARTITION BY series ORDER BY n ROWS 10 PRECEDING),
        last_14 AS (PARTITION BY series ORDER BY n ROWS 13 PRECEDING)
),

windows AS (
    SELECT
        *,
        avg(close) OVER last_10 AS sma_10,
        avg(close) OVER last_12 AS mean_12,
        avg(close) OVER last_20 AS sma_20,
        avg(close) OVER last_26 AS mean_26,
        avg(close) OVER last_30 AS sma_30,
        avg(close) OVER last_50 AS sma_50,
        stddev_pop(close) OVER last_20 AS spread,
        avg(volume) OVER last_20 AS volume_mean,
        list(close) OVER last_20 AS closes,
        list(typical) OVER last_20 AS typicals,
        avg(typical) OVER last_20 AS typical_mean,
        stddev_samp(log_return) OVER last_20 AS hv_20,
        stddev_samp(log_return) OVER last_60 AS hv_60,
        coalesce(sum(typical * volume) FILTER (typical_change > 1e-13 * typical) OVER last_14, 0) AS rising,
        coalesce(sum(typical * volume) FILTER (abs(typical_change) > 1e-13 * typical) OVER last_14, 0) AS moving,
        CASE WHEN top_14 > bottom_14 THEN 100 * (close - bottom_14) / (top_14 - bottom_14) ELSE 0 END AS raw_stochastic,
        sum(CASE WHEN n = 0 THEN volume ELSE volume * sign(change) END) OVER so_far AS obv,
        coalesce(sum(vpt_step) OVER so_far, 0) AS vpt,
        -- The middle of the last 11 is a pivot once 5 candles after it are known.
        CASE WHEN n >= 10 AND lag(low, 5) OVER by_time = bottom_11 THEN bottom_11 END AS pivot_low,
        CASE WHEN n >= 10 AND lag(high, 5) OVER by_time = top_11 THEN top_11 END AS pivot_high
    FROM moves
    WINDOW
        by_time AS (PARTITION BY series ORDER BY n),
        so_far AS (PARTITION BY series ORDER BY n ROWS UNBOUNDED PRECEDING),
        last_10 AS (PARTITION BY series ORDER BY n ROWS 9 PRECEDING),
        last_12 AS (PARTITION BY series ORDER BY n ROWS 11 PRECEDING),
        last_14 AS (PARTITION BY series ORDER BY n ROWS 13 PRECEDING),
        last_20 AS (PARTITION BY series ORDER BY n ROWS 19 PRECEDING),
        last_26 AS (PARTITION BY series ORDER BY n ROWS 25 PRECEDING),
        last_30 AS (PARTITION BY series ORDER BY n ROWS 29 PRECEDING),
        last_50 AS (PARTITION BY series ORDER BY n ROWS 49 PRECEDING),
        last_60 AS (PARTITION BY series ORDER BY n ROWS 59 PRECEDING)
),

-- What each candle needs of the one before it: exponential and Wilder averages.
carried AS (
    SELECT
        series,
        n,
        0.0::DOUBLE AS ema_10,
        0.0::DOUBLE AS ema_20,
        0.0::DOUBLE AS ema_50,
        0.0::DOUBLE AS ema_12,
        0.0::DOUBLE AS ema_26,
        0.0::DOUBLE AS signal,
        0.0::DOUBLE AS gain,
        0.0::DOUBLE AS loss,
        0.0::DOUBLE AS atr,
        0.0::DOUBLE AS plus_dm,
        0.0::DOUBLE AS minus_dm,
        0.0::DOUBLE AS range_sum,
        0.0::DOUBLE AS dx_sum,
        0.0::DOUBLE AS adx
    FROM windows
    WHERE n = 0
    UNION ALL
    SELECT
        series,
        n,
        ema_10,
        ema_20,
        ema_50,
        ema_12,
        ema_26,
        CASE
            WHEN n < 25 THEN 0
            WHEN n < 33 THEN signal + ema_12 - ema_26
            WHEN n = 33 THEN (signal + ema_12 - ema_26) / 9
            ELSE signal + 0.2 * (ema_12 - ema_26 - signal)
        END,
        gain,
        loss,
        atr,
        plus_dm,
        minus_dm,
        range_sum,
        CASE WHEN n BETWEEN 14 AND 27 THEN dx_sum + dx ELSE dx_sum END,
        CASE
            WHEN n < 27 THEN 0
            WHEN n = 27 THEN (dx_sum + dx) / 14
            WHEN NOT has_dx THEN adx
            ELSE (13 * adx + dx) / 14
        END
    FROM (
        SELECT
            *,
            range_sum > 1e-12 * close AND plus_dm + minus_dm > 1e-12 * close AS has_dx,
            CASE WHEN has_dx THEN 100 * abs(plus_dm - minus_dm) / (plus_dm + minus_dm) ELSE 0 END AS dx
        FROM (
            SELECT
                w.series,
                w.n,
                w.close,
                c.signal,
                c.dx_sum,
                c.adx,
                CASE WHEN w.n <= 9 THEN w.sma_10 ELSE c.ema_10 + (w.close - c.ema_10) * 2 / 11 END AS ema_10,
                CASE WHEN w.n <= 19 THEN w.sma_20 ELSE c.ema_20 + (w.close - c.ema_20) * 2 / 21 END AS ema_20,
                CASE WHEN w.n <= 49 THEN w.sma_50 ELSE c.ema_50 + (w.close - c.ema_50) * 2 / 51 END AS ema_50,
                CASE WHEN w.n <= 25 THEN w.mean_12 ELSE c.ema_12 + (w.close - c.ema_12) * 2 / 13 END AS ema_12,
                CASE WHEN w.n <= 25 THEN w.mean_26 ELSE c.ema_26 + (w.close - c.ema_26) * 2 / 27 END AS ema_26,
                CASE
                    WHEN w.n < 14 THEN c.gain + greatest(w.change, 0)
                    WHEN w.n = 14 THEN (c.gain + greatest(w.change, 0)) / 14
                    ELSE (13 * c.gain + greatest(w.change, 0)) / 14
                END AS gain,
                CASE
                    WHEN w.n < 14 THEN c.loss + greatest(-w.change, 0)
                    WHEN w.n = 14 THEN (c.loss + greatest(-w.change, 0)) / 14
                    ELSE (13 * c.loss + greatest(-w.change, 0)) / 14
                END AS loss,
                CASE
                    WHEN w.n < 14 THEN c.atr + w.true_range
                    WHEN w.n = 14 THEN (c.atr + w.true_range) / 14
                    ELSE (13 * c.atr + w.true_range) / 14
                END AS atr,
                c.plus_dm * CASE WHEN w.n < 14 THEN 1 ELSE 13.0::DOUBLE / 14 END
                + CASE WHEN w.up > 0 AND w.up > w.down THEN w.up ELSE 0 END AS plus_dm,
                c.minus_dm * CASE WHEN w.n < 14 THEN 1 ELSE 13.0::DOUBLE / 14 END
                + CASE WHEN w.down > 0 AND w.down > w.up THEN w.down ELSE 0 END AS minus_dm,
                c.range_sum * CASE WHEN w.n < 14 THEN 1 ELSE 13.0::DOUBLE / 14 END + w.true_range AS range_sum
            FROM carried AS c
            INNER JOIN windows AS w ON w.series = c.series AND w.n = c.n + 1
        )
    )
),

joined AS (
    SELECT
        w.*,
        c.* EXCLUDE (series, n),
        last_value(w.pivot_low IGNORE NULLS) OVER so_far AS last_pivot_low,
        last_value(w.pivot_high IGNORE NULLS) OVER so_far AS last_pivot_high,
        avg(w.raw_stochastic) OVER last_3 AS slow_stochastic
    FROM windows AS w
    INNER JOIN carried AS c ON c.series = w.series AND c.n = w.n
    WINDOW
        so_far AS (PARTITION BY w.series ORDER BY w.n ROWS UNBOUNDED PRECEDING),
        last_3 AS (PARTITION BY w.series ORDER BY w.n ROWS 2 PRECEDING)
),

measured AS (
    SELECT
        *,
        CASE WHEN spread > 1e-12 * sma_20 THEN spread ELSE 0 END AS band,
        list_avg(list_transform(typicals, lambda x: abs(x - typical_mean))) AS typical_deviation,
        plus_dm + minus_dm > 1e-12 * close AND range_sum > 1e-12 * close AS has_direction
    FROM joined
)

SELECT
    series,
    open_time_ms,
    open,
    high,
    low,
    close,
    volume,
    change AS price_change_1,
    change / lag(close) OVER by_time AS simple_return_1,
    (close - lag(close, 3) OVER by_time) / lag(close, 3) OVER by_time AS simple_return_3,
    (close - lag(close, 12) OVER by_time) / lag(close, 12) OVER by_time AS simple_return_12,
    log_return AS log_return_1,
    2 * atanh((close - lag(close, 6) OVER by_time) / (close + lag(close, 6) OVER by_time)) AS log_return_6,
    2 * atanh((close - lag(close, 24) OVER by_time) / (close + lag(close, 24) OVER by_time)) AS log_return_24,
    CASE WHEN n >= 14 THEN CASE WHEN gain + loss > 1e-12 * close THEN 100 * gain / (gain + loss) ELSE 0 END END AS rsi_14,
    CASE WHEN n >= 33 THEN ema_12 - ema_26 END AS macd,
    CASE WHEN n >= 33 THEN signal END AS macd_signal,
    CASE WHEN n >= 33 THEN ema_12 - ema_26 - signal END AS macd_histogram,
    CASE WHEN n >= 19 THEN sma_20 + 2 * band END AS bollinger_upper,
    CASE WHEN n >= 19 THEN sma_20 END AS bollinger_middle,
    CASE WHEN n >= 19 THEN sma_20 - 2 * band END AS bollinger_lower,
    CASE WHEN n >= 17 THEN slow_stochastic END AS stochastic_k,
    CASE WHEN n >= 17 THEN avg(slow_stochastic) OVER last_3 END AS stochastic_d,
    CASE WHEN n >= 14 THEN atr END AS atr_14,
    CASE WHEN n >= 27 THEN adx END AS adx_14,
    CASE WHEN n >= 9 THEN sma_10 END AS sma_10,
    CASE WHEN n >= 29 THEN sma_30 END AS sma_30,
    CASE WHEN n >= 49 THEN sma_50 END AS sma_50,
    CASE WHEN n >= 9 THEN ema_10 END AS ema_10,
    CASE WHEN n >= 19 THEN ema_20 END AS ema_20,
    CASE WHEN n >= 49 THEN ema_50 END AS ema_50,
    CASE WHEN n >= 19 THEN list_dot_product(closes, [i::DOUBLE FOR i IN range(1, 21)]) / 210 END AS wma_20,
    CASE WHEN n >= 19 THEN volume_mean END AS volume_sma_20,
    CASE WHEN n >= 19 THEN CASE WHEN volume_mean > 0 THEN volume / volume_mean ELSE 0 END END AS volume_ratio_20,
    obv,
    vpt,
    CASE WHEN n >= 20 THEN hv_20 END AS historical_volatility_20,
    CASE WHEN n >= 60 THEN hv_60 END AS historical_volatility_60,
    CASE WHEN n >= 14 THEN atr / close END AS atr_volatility_14,
    CASE WHEN n >= 19 THEN 4 * band / sma_20 END AS bollinger_width_20,
    CASE WHEN n >= 49 THEN CASE WHEN atr > 1e-12 * close THEN abs(ema_20 - ema_50) / atr ELSE 0 END END AS trend_strength,
    CASE WHEN n >= 14 THEN CASE WHEN has_direction THEN (plus_dm - minus_dm) / (plus_dm + minus_dm) ELSE 0 END END
        AS trend_direction,
    CASE WHEN n >= 10 THEN coalesce(last_pivot_low, bottom_11) END AS support_level,
    CASE WHEN n >= 10 THEN coalesce(last_pivot_high, top_11) END AS resistance_level,
    100 * (close - lag(close, 10) OVER by_time) / lag(close, 10) OVER by_time AS roc_10,
    100 * (close - lag(close, 48) OVER by_time) / lag(close, 48) OVER by_time AS roc_48,
    CASE
        WHEN n < 19 THEN NULL
        WHEN typical_deviation > 1e-12 * typical_mean THEN (typical - typical_mean) / (0.015 * typical_deviation)
        ELSE 0
    END AS cci_20,
    CASE
        WHEN n < 13 THEN NULL
        WHEN top_14 > bottom_14 THEN -100 * (top_14 - close) / (top_14 - bottom_14)
        ELSE 0
    END AS williams_r_14,
    CASE WHEN n >= 14 THEN CASE WHEN moving > 0 THEN 100 * rising / moving ELSE 0 END END AS mfi_14,
    CASE
        WHEN n < 60 THEN NULL
        WHEN hv_60 > 1e-12 THEN 2 * atanh((close - lag(close, 12) OVER by_time) / (close + lag(close, 12) OVER by_time)) / (hv_60 * sqrt(12))
        ELSE 0
    END AS relative_momentum_12,
    CASE
        WHEN n < 60 THEN NULL
        WHEN hv_60 > 1e-12 THEN 2 * atanh((close - lag(close, 48) OVER by_time) / (close + lag(close, 48) OVER by_time)) / (hv_60 * sqrt(48))
        ELSE 0
    END AS relative_momentum_48
FROM measured
WINDOW
    by_time AS (PARTITION BY series ORDER BY n),
    last_3 AS (PARTITION BY series ORDER BY n ROWS 2 PRECEDING)
ORDER BY series, open_time_ms
