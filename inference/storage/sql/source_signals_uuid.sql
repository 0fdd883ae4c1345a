-- What models said under those names; the 49 features themselves are computed again from candles, not stored.
CREATE VIEW source_signals AS
SELECT
    uuid AS id,
    symbol,
    direction,
    confidence,
    price,
    model_version AS model,
    inputs AS features,
    decided_at AS created_at
FROM signals
WHERE direction IS NOT NULL
