"""The churn app: a page that scores people with the Production model, run by Streamlit as a process of its own."""
