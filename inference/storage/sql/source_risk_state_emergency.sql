-- How the account stood at each decision, under those names; the newest row is the present.
CREATE VIEW source_risk_state AS
SELECT
    daily_pnl,
    weekly_pnl,
    open_positions,
    total_exposure,
    max_drawdown,
    emergency <> '' AS emergency_brake_active,
    decided_at AS last_updated
FROM risk_state
