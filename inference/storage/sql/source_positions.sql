-- Open positions under those names.
CREATE VIEW source_positions AS
SELECT
    trade_id AS id,
    trade_id,
    symbol,
    direction AS side,
    quantity AS size,
    entry_price,
    mark_price AS current_price,
    unrealized_pnl,
    margin,
    leverage,
    target_price AS tp_price,
    stop_price AS sl_price,
    opened_at AS created_at,
    updated_at
FROM positions
WHERE status = 'OPEN'
