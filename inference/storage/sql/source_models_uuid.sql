-- Versions of models under those names; an ensemble is one version, with its members inside.
CREATE VIEW source_models AS
SELECT
    uuid AS id,
    'ensemble' AS type,
    version,
    'bundles/' || digest AS artifact_path,
    detail AS metrics,
    status,
    first_seen_at AS created_at,
    promoted_at
FROM models
