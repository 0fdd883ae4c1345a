"""Flows: orchestration, training and replay; the only rooms that know Prefect and the MLflow library."""
