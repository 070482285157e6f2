"""The invented exports of the churn pipeline."""
