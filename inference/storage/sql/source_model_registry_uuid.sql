-- The same as a registry. Parameters are the ensemble's own; those of each member are in MLflow (`qtctl models versions`).
CREATE VIEW source_model_registry AS
SELECT
    uuid AS id,
    version,
    verdict AS tag,
    'bundles/' || digest AS path,
    detail ->> 'params' AS params_json,
    detail AS metrics_json,
    detail ->> 'trained_at' AS trained_at,
    status = 'ACTIVE' AS is_active
FROM models
