-- Days under those names. Trades count on the day that they closed, net of fees.
CREATE VIEW source_daily_performance AS
SELECT date, trades_count, total_pnl, avg_roi
FROM daily_performance
