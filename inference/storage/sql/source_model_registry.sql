-- The same as a registry; parameters and the time of training are in MLflow (`qtctl models versions`).
CREATE VIEW source_model_registry AS
SELECT
    version || ':' || substr(digest, 1, 8) AS id,
    version,
    verdict AS tag,
    'bundles/' || digest AS path,
    NULL AS params_json,
    detail AS metrics_json,
    NULL AS trained_at,
    status = 'ACTIVE' AS is_active
FROM models
