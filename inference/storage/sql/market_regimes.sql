-- The kind of market that each symbol was in at each candle that was decided on.
CREATE VIEW market_regimes AS
SELECT candle_closed_at, symbol, regime
FROM signals
WHERE regime IS NOT NULL
