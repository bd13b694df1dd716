"""Online serving: opens bundles, answers top-k label queries over HTTP. Imports neither training nor model_export."""
