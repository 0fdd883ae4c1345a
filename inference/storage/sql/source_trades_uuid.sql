-- Trades under the names of the systems whose queries people bring along: ids are UUIDs, long and short are sides there.
CREATE VIEW source_trades AS
SELECT
    uuid AS id,
    symbol,
    direction AS side,
    COALESCE(entry_price, reference_price) AS entry_price,
    quantity,
    leverage,
    target_price AS tp_price,
    stop_price AS sl_price,
    status,
    pnl,
    roi,
    planned_at AS created_at,
    closed_at,
    plan AS metadata
FROM trades
