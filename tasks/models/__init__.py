"""Models: trained on Spark, recorded in MLflow, explained, compared and promoted."""
