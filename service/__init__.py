"""Online serving: opens bundles and answers top-k label queries over HTTP. Imports neither training nor model_export."""
