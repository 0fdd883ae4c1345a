-- What each column's values are like: how many, how many of them missing or zero, moments, range, exact quantiles.
-- A value that is not finite is missing and enters nothing else. Sums are compensated, so that order costs no digits.
WITH finite AS (
    SELECT column_number, value FROM measured WHERE isfinite(value)
),
ranges AS (
    SELECT
        column_number,
        count(*) AS finite,
        count_if(value = 0) AS zeros,
        favg(value) AS mean,
        min(value) AS least,
        max(value) AS greatest,
        quantile_cont(value, $shares::DOUBLE[]) AS quantiles
    FROM finite
    GROUP BY column_number
),
spreads AS (
    SELECT column_number, fsum((value - mean) * (value - mean)) AS squares
    FROM finite JOIN ranges USING (column_number)
    GROUP BY column_number
)
SELECT
    column_number,
    count(*) AS n,
    coalesce(any_value(finite), 0) AS finite,
    coalesce(any_value(zeros), 0) AS zeros,
    any_value(mean) AS mean,
    any_value(squares) AS squares,
    any_value(least) AS least,
    any_value(greatest) AS greatest,
    any_value(quantiles) AS quantiles
FROM measured LEFT JOIN ranges USING (column_number) LEFT JOIN spreads USING (column_number)
GROUP BY column_number
ORDER BY column_number
