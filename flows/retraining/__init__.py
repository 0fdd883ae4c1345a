"""Retraining jobs: their table, their finished steps, and when the next one is due; knows no Prefect and no MLflow."""
