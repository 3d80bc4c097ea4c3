"""How and when: Dagster over the stages of dvc.yaml. What a stage does is assets' concern."""
