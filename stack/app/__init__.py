"""The churn app: a page that scores people with the Production model, run by Streamlit in its own process."""
