"""The page of the churn app.

Served by `stack.app.served` with MLFLOW_TRACKING_URI and its login, TASKFLOW_MODEL (the name of the registered model),
TASKFLOW_DRIFT (its monitor's experiment) and, for links to runs and reports, AIRFLOW__API__BASE_URL in its environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from stack.app import batch, charts, drift, form
from stack.app.heuristic import FORMULA, Heuristic
from stack.app.production import ProductionModel, Seen, Shelf
from stack.app.registered_models import Evidence, Registry, Release, Unusable
from stack.app.scoring import Scorer, Unit, Value

# Streamlit leaves room at the top for a toolbar, which is hidden here.
STYLE = "<style>.stMainBlockContainer {padding-top: 2.5rem; padding-bottom: 2rem} header {display: none}</style>"
METRICS = {
    "roc_auc": ("ROC AUC", "How often a person who leaves ranks above one who stays. 0.5 is chance, 1 is perfect."),
    "pr_auc": (
        "PR AUC",
        "Average precision: how clean the top of the ranking is. Chance level is the share who leave.",
    ),
    "log_loss": ("Log loss", "How surprised the model is by what happened. Smaller is better."),
    "brier": ("Brier score", "The mean squared error of the probabilities. Smaller is better."),
    "accuracy": ("Accuracy", "The share of correct verdicts at the threshold."),
    "threshold": ("Threshold", "A person with at least this probability counts as leaving."),
}
EFFECTS: dict[Unit, str] = {
    "log-odds": (
        "Next to each bar: how the value changes the odds, the number of people who leave for each one who stays."
    ),
    "probability": "Next to each bar: what the value adds, in percentage points.",
}
PLOTS = {
    "roc": "ROC curve",
    "pr": "Precision and recall",
    "calibration": "Calibration",
    "confusion": "Confusion matrix",
    "shap_summary": "SHAP values of people",
    "shap_bar": "Mean SHAP values",
}


@st.cache_resource
def shelf(address: str, name: str) -> Shelf:
    """Return the shelf with the Production model, shared by all sessions."""
    return Shelf(Registry(address), name)


def main() -> None:
    """Draw the page."""
    st.set_page_config("Churn", str(Path(__file__).with_name("icon.svg")), layout="wide")
    st.html(STYLE)
    address, name = os.environ.get("MLFLOW_TRACKING_URI", ""), os.environ.get("TASKFLOW_MODEL", "churn-model")
    st.title("Who is about to leave?")
    st.markdown(
        "The probability that a person makes no more payments in the coming weeks, and why. "
        "Score one person, or a file of people."
    )
    if address:
        with st.spinner(f"Asking MLflow at {address} for the Production model"):
            seen = shelf(address, name).look()
    else:
        seen = Seen(problem="MLFLOW_TRACKING_URI is not set: the app does not know where MLflow is")
    scorer: Scorer = seen.model or Heuristic()
    banner(seen, name, address)
    evidence = found_in_training(shelf(address, name), seen.model) if seen.model else None
    one, many, about, drifting = st.tabs(["One person", "A file of people", "The model", "Drift"])
    with one:
        one_person(scorer, evidence.importance if isinstance(evidence, Evidence) else {})
    with many:
        many_people(scorer)
    with about:
        if seen.model:
            about_model(seen.model, Registry(address), evidence)
        else:
            about_heuristic()
    with drifting:
        about_drift(address, os.environ.get("TASKFLOW_DRIFT", "churn_drift"))


def banner(seen: Seen, name: str, address: str) -> None:
    """Say which model answers, and what is wrong."""
    if seen.model and seen.problem:
        st.warning(f"{seen.problem}. {seen.model.title}, loaded earlier, still answers.")
    elif seen.model:
        release = seen.model.release
        auc = release.metrics.get("roc_auc")
        quality = "" if auc is None else f" · ROC AUC {auc:.3f}"
        st.caption(f"Answered by **{seen.model.title}**{quality} · promoted in {address}")
    elif seen.problem:
        st.error(f"{seen.problem}. Meanwhile a **heuristic** answers: a rule of thumb, not a trained model.")
    else:
        st.warning(
            f"**There is no Production model yet.** No version of `{name}` in MLflow at {address} has the alias "
            "`production`: run the training pipeline, which promotes one. Until then a **heuristic** answers: "
            "a rule of thumb, not a trained model."
        )


def found_in_training(models: Shelf, model: ProductionModel) -> Evidence | Unusable:
    """Return what the training of a model recorded, or why it cannot be fetched: scores do not depend on it."""
    try:
        return models.evidence(model.release)
    except Unusable as problem:
        return problem


def one_person(scorer: Scorer, importance: Mapping[str, float]) -> None:
    """Ask for a person's values, the most important first, and answer."""
    fields = sorted(scorer.fields, key=lambda field: -importance.get(field.name, 0))
    left, right = st.columns([5, 7], gap="large")
    with left:
        values = form.ask(fields, key=scorer.title)
    with right:
        if problems := form.problems(scorer.fields, values):
            st.error("\n".join(f"- {problem}" for problem in problems))
            return
        answer(scorer, values)


def answer(scorer: Scorer, values: dict[str, Value]) -> None:
    """Show a person's probability, the verdict and the reasons for it."""
    person = form.person(values)
    started = time.perf_counter()
    try:
        probability = float(scorer.score(person)["probability"].iloc[0])
        explanation = scorer.explain(person)
    except Unusable as problem:
        st.error(f"No score: {problem}")
        return
    milliseconds = (time.perf_counter() - started) * 1000
    number, bar = st.columns([2, 5], vertical_alignment="center")
    by = ", by the heuristic" if isinstance(scorer, Heuristic) else ""
    number.metric(f"Probability of churn{by}", f"{probability:.1%}")
    bar.altair_chart(charts.gauge(probability, scorer.threshold), width="stretch")
    verdict(probability, scorer)
    st.subheader("Why")
    st.markdown(
        f"From a typical person's {explanation.probability(explanation.base):.0%} to this person's {probability:.0%}, "
        f"one value at a time, the largest effect first. {EFFECTS[explanation.unit]}"
    )
    st.altair_chart(charts.waterfall(explanation, scorer.fields, values), width="stretch")
    st.markdown("\n".join(f"- {sentence}" for sentence in charts.sentences(explanation, scorer.fields, values)))
    st.caption(f"{scorer.title} answered in {milliseconds:.0f} ms.")


def verdict(probability: float, scorer: Scorer) -> None:
    """Say which side of the threshold a probability is on."""
    if probability >= scorer.threshold:
        st.markdown(f":red-badge[Likely to leave] The probability reaches the threshold of {scorer.threshold:.0%}.")
    else:
        st.markdown(f":green-badge[Likely to stay] The probability is below the threshold of {scorer.threshold:.0%}.")


def many_people(scorer: Scorer) -> None:
    """Take a CSV, and return it with scores."""
    left, right = st.columns([5, 7], gap="large")
    with left:
        st.markdown(
            "A CSV with these columns in its header, in any order; other columns are kept. "
            f"{scorer.title} adds {', '.join(f'`{name}`' for name in batch.RESULTS)}."
        )
        st.download_button(
            "Download the template", batch.template(scorer.fields), "people.csv", "text/csv", icon=":material/download:"
        )
        file = st.file_uploader("CSV of people", type=["csv", "txt"])
    with right:
        if file is None:
            asked_columns(scorer)
            return
        try:
            scored = scored_file(file, scorer)
        except (batch.Unreadable, Unusable) as problem:
            st.error(f"**{file.name} cannot be scored.** {problem}")
            asked_columns(scorer)
            return
        results(scored, scorer, file.name)


def asked_columns(scorer: Scorer) -> None:
    """Show the columns that a file must have."""
    rows = [(field.name, field.expected, charts.written(field.example), not field.optional) for field in scorer.fields]
    st.dataframe(
        pd.DataFrame(rows, columns=["Column", "Expected", "Example", "Required"]), hide_index=True, width="stretch"
    )


def scored_file(file: st.runtime.uploaded_file_manager.UploadedFile, scorer: Scorer) -> batch.Scored:
    """Return a file's scores, computed once for each file and model."""
    of = (file.file_id, scorer.title)
    if st.session_state.get("scored of") != of:
        bar = st.progress(0.0, f"Scoring {file.name}")
        try:
            st.session_state["scored"] = batch.score_csv(file, scorer, progress=partial(_draw, bar, file.name))
        finally:
            bar.empty()
        st.session_state["scored of"] = of
    done: batch.Scored = st.session_state["scored"]
    return done


def _draw(bar: DeltaGenerator, name: str, share: float) -> None:
    bar.progress(share, f"Scoring {name}")


def results(scored: batch.Scored, scorer: Scorer, name: str) -> None:
    """Show the result of scoring a file."""
    rows, people, leaving = st.columns(3)
    rows.metric("Rows", f"{scored.rows:,}", border=True)
    people.metric("Scored", f"{scored.scored:,}", border=True)
    share = f", {scored.churning / scored.scored:.0%}" if scored.scored else ""
    leaving.metric(f"Likely to leave{share}", f"{scored.churning:,}", border=True)
    st.download_button(
        "Download the scored file",
        scored.content,
        f"{Path(name).stem}_scored.csv",
        "text/csv",
        type="primary",
        icon=":material/download:",
    )
    if scored.problem_count:
        unscored = scored.rows - scored.scored
        st.warning(f"{unscored:,} of {scored.rows:,} rows have no score; the file's column `problem` says why.")
        listed, all_of_them = len(scored.problems), f"{scored.problem_count:,} problems"
        with st.expander(all_of_them if listed == scored.problem_count else f"The first {listed} of {all_of_them}"):
            shown = [(problem.line, problem.column, problem.value, problem.expected) for problem in scored.problems]
            st.dataframe(pd.DataFrame(shown, columns=["Line", "Column", "Value", "Expected"]), hide_index=True)
    if scored.unknown:
        unseen = ", ".join(f"{count:,} in `{name}`" for name, count in scored.unknown.items())
        st.info(f"Texts that the model did not see in training all count as the same one: {unseen}.")
    if scored.scored:
        st.altair_chart(charts.histogram(scored.histogram, scorer.threshold), width="stretch")
    st.caption(f"The first {len(scored.preview)} rows")
    st.dataframe(scored.preview, hide_index=True)


def about_model(model: ProductionModel, registry: Registry, evidence: Evidence | Unusable | None) -> None:
    """Show where the model comes from and what its training recorded."""
    for column, (name, (title, meaning)) in zip(st.columns(len(METRICS)), METRICS.items(), strict=True):
        value = model.release.metrics.get(name)
        column.metric(title, "not known" if value is None else f"{value:.3f}", help=meaning, border=True)
    left, right = st.columns([5, 7], gap="large")
    with left:
        st.subheader("Where it comes from")
        origin(registry, model.release)
    if not isinstance(evidence, Evidence):
        right.error(f"What its training recorded cannot be fetched. {evidence}")
        return
    with right:
        st.subheader("What matters to it")
        titles = {field.name: field.title for field in model.fields}
        st.altair_chart(charts.importance(evidence.importance, titles), width="stretch")
    st.subheader("What its training found")
    ordered = [name for name in PLOTS if name in evidence.plots] + sorted(set(evidence.plots) - set(PLOTS))
    columns = st.columns(3)
    for position, name in enumerate(ordered):
        columns[position % 3].image(evidence.plots[name], PLOTS.get(name, name), width="stretch")


def origin(registry: Registry, release: Release) -> None:
    """Show version, time and run, with links."""
    dag, run = release.tags.get("airflow.dag_id"), release.tags.get("airflow.run_id")
    lines = [
        f"**Version** [{release.version} of {release.name}]({registry.version_page(release)})",
        f"**Registered** {release.created:%-d %B %Y, %H:%M} UTC",
        f"**Trained in** [run {release.run_id[:8]}… of MLflow]({registry.run_page(release)})",
    ]
    if dag and run:
        airflow = os.environ.get("AIRFLOW__API__BASE_URL", "").rstrip("/")
        page = f"{airflow}/dags/{quote(dag)}/runs/{quote(run, safe='')}"
        lines.append(f"**Made by** [{dag}, {run}]({page})" if airflow else f"**Made by** {dag}, {run}")
    if release.description:
        lines.append(f"**Decision** {release.description}")
    st.markdown("\n\n".join(lines))


def about_heuristic() -> None:
    """Show what answers while there is no model."""
    st.subheader("The heuristic")
    st.markdown(
        "There is no Production model to answer, so a rule of thumb does. It was not learned from data, and its "
        "probabilities only rank people:"
    )
    st.code(FORMULA, language=None, wrap_lines=True)


@st.cache_data(ttl=30, show_spinner=False)
def drift_reports(address: str, experiment: str) -> list[drift.Report]:
    """Return the reports of a monitor, fetched at most twice a minute."""
    return drift.reports(Registry(address), experiment)


def about_drift(address: str, experiment: str) -> None:
    """Show how far today's people are from those that the model was trained on, week by week."""
    try:
        reports = drift_reports(address, experiment) if address else []
    except Unusable as problem:
        st.warning(f"The drift reports cannot be fetched. {problem}")
        return
    if not reports:
        st.info(
            f"There is no report of drift yet in MLflow's experiment `{experiment}`. "
            "Run the pipeline that monitors the features, after the one that trains."
        )
        return
    last_report(reports[-1])
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Share of columns that drifted")
        shares, limits = ({report.date: value(report) for report in reports} for value in (_share, _greatest))
        st.altair_chart(charts.over_time(shares, "Share", limits), width="stretch")
    with right:
        st.subheader("One column")
        column = st.selectbox("Column", sorted(reports[-1].scores), label_visibility="collapsed")
        scores = {report.date: report.scores[column] for report in reports if column in report.scores}
        st.altair_chart(charts.over_time(scores, "Score"), width="stretch")
    report_table(reports)


def _share(report: drift.Report) -> float:
    return report.share


def _greatest(report: drift.Report) -> float:
    return report.greatest


def last_report(last: drift.Report) -> None:
    """Say what the newest report found."""
    badge = ":red-badge[Drift]" if last.detected else ":green-badge[No drift]"
    columns = f": {last.drifted}" if last.drifted else ""
    st.markdown(
        f"{badge} On {last.date:%-d %B %Y}, {last.share:.0%} of the columns had drifted{columns}. "
        f"Above {last.greatest:.0%} the monitor raises an alarm."
    )


def report_table(reports: list[drift.Report]) -> None:
    """List the reports, newest first, with links to their pages."""
    airflow = os.environ.get("AIRFLOW__API__BASE_URL", "")
    rows = [
        (report.date, report.share, report.detected, report.drifted, drift.address(report.page, airflow))
        for report in reversed(reports)
    ]
    table = pd.DataFrame(rows, columns=["Date", "Share", "Drift", "Columns that drifted", "Report"])
    links = st.column_config.LinkColumn(display_text="Open", help="Opens in Airflow, if you are logged in there.")
    shares = st.column_config.NumberColumn(format="percent")
    st.dataframe(table, hide_index=True, width="stretch", column_config={"Report": links, "Share": shares})


main()
