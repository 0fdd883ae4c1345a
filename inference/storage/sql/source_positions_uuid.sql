-- Open positions under those names, each with the id of its trade.
CREATE VIEW source_positions AS
SELECT
    positions.uuid AS id,
    trades.uuid AS trade_id,
    positions.symbol,
    positions.direction AS side,
    positions.quantity AS size,
    positions.entry_price,
    positions.mark_price AS current_price,
    positions.unrealized_pnl,
    positions.margin,
    positions.leverage,
    positions.target_price AS tp_price,
    positions.stop_price AS sl_price,
    positions.opened_at AS created_at,
    positions.updated_at
FROM positions
INNER JOIN trades ON positions.trade_id = trades.id
WHERE positions.status = 'OPEN'
