"""The churn app: its page in Streamlit's own test harness, on a real MLflow; its parts on data."""

from __future__ import annotations

import io
import math
import uuid
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pytest
from streamlit.testing.v1 import AppTest

from stack.app.batch import SHOWN_PROBLEMS, Unreadable, score_csv, template
from stack.app.charts import sentences, waterfall
from stack.app.form import problems
from stack.app.heuristic import Heuristic
from stack.app.production import Shelf
from stack.app.registered_models import Registry
from stack.app.registered_models import digest_of as app_digest
from stack.app.scoring import Explanation, Field
from stack.app_server import SCRIPT
from stack.tracking_server import BUCKET
from tasks.models.digests import DIGEST, digest_of
from tests.support.candidates import THRESHOLD, TRUTH, WEAK, Recipe, log_candidate, people, promote_candidate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stack.objects import ObjectStore

pytestmark = pytest.mark.usefixtures("mlflow_login")

NOBODY = "http://127.0.0.1:9"
"""An address where nobody listens."""


@pytest.fixture(scope="module")
def address(mlflow_server: Any) -> str:
    """Where MLflow answers."""
    return str(mlflow_server.address)


@pytest.fixture(scope="module")
def candidate(address: str) -> str:
    """The run of a candidate with all that a training leaves."""
    return log_candidate(address, Recipe())


@pytest.fixture(scope="module")
def promoted(address: str, candidate: str) -> str:
    """The name of a registered model whose version 1 is Production."""
    name = f"churn-{uuid.uuid4().hex[:8]}"
    promote_candidate(address, candidate, name)
    return name


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """A function that opens the page for an address and a model."""

    def opened(address: str, model: str) -> AppTest:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("TASKFLOW_MODEL", model)
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080")
        return AppTest.from_file(str(SCRIPT), default_timeout=60).run()

    return opened


def expected(person: dict[str, Any]) -> float:
    """Return the probability of a person by the weights of the candidate, without its model."""
    parts = [
        weight[person[name]] if isinstance(weight, dict) else weight * person[name] for name, weight in TRUTH.items()
    ]
    return 1 / (1 + math.exp(-sum(parts)))


def shown(page: AppTest, label: str) -> str:
    """Return the value of the metric with a label."""
    (found,) = [metric.value for metric in page.metric if metric.label == label]
    return str(found)


def field(page: AppTest, title: str) -> Any:
    """Return the widget with a title."""
    (found,) = [one for one in (*page.number_input, *page.selectbox, *page.text_input) if one.label == title]
    return found


def test_form_gives_probability(page: Callable[..., AppTest], address: str, promoted: str) -> None:
    """The page begins with the model's own example, and scores what is sent."""
    opened = page(address, promoted)
    person = people(Recipe().rows, Recipe().seed).iloc[0].to_dict()
    assert shown(opened, "Probability of churn") == f"{expected(person):.1%}"
    field(opened, "Days since last payment").set_value(88.0)
    field(opened, "Card type").set_value("prepaid")
    opened.button[0].click().run()
    person |= {"days_since_last_payment": 88.0, "card_type": "prepaid"}
    assert shown(opened, "Probability of churn") == f"{expected(person):.1%}"
    assert any("Likely to leave" in one.value for one in opened.markdown)
    assert not opened.exception


def test_form_follows_the_signature(page: Callable[..., AppTest], address: str, promoted: str) -> None:
    """Numbers, yes and no, and the levels that the model knows; what matters most comes first."""
    opened = page(address, promoted)
    assert [one.label for one in opened.number_input] == ["Days since last payment", "Balance", "Payments"]
    assert {one.label: one.options for one in opened.selectbox} == {
        "Logged in": ["Yes", "No"],
        "Card type": ["credit", "debit", "prepaid"],
    }


def test_empty_value_gets_message() -> None:
    """What the model needs and is not given is named; what may be missing is not."""
    values = {"days_since_last_payment": None, "payments": 3, "is_new": None, "card": None, "note": None}
    assert problems(FIELDS, values) == [
        "Days since last payment is empty; it must be a number, such as 12.5.",
        "Is new is empty; it must be true or false.",
        "Card is empty; it must be a text: credit, debit, or another.",
    ]


@pytest.mark.parametrize("value", [-1e308, 1e308, 0.0])
def test_extreme_values_are_scored(page: Callable[..., AppTest], address: str, promoted: str, value: float) -> None:
    """Whatever number is typed, there is an answer and no traceback."""
    opened = page(address, promoted)
    field(opened, "Balance").set_value(value)
    field(opened, "Days since last payment").set_value(value)
    opened.button[0].click().run()
    assert 0 <= float(shown(opened, "Probability of churn").rstrip("%")) <= 100
    assert not opened.exception


def test_model_tab_tells_origin(page: Callable[..., AppTest], address: str, promoted: str, candidate: str) -> None:
    """Metrics as recorded, and links to the version, to the run and to the run of Airflow."""
    opened = page(address, promoted)
    metrics = Registry(address).production(promoted).metrics  # type: ignore[union-attr]  # it is there: fails if not
    assert shown(opened, "ROC AUC") == f"{metrics['roc_auc']:.3f}"
    assert shown(opened, "Threshold") == "0.400"
    (origin,) = [one.value for one in opened.markdown if "Made by" in one.value]
    assert f"[1 of {promoted}]({address}/#/models/{promoted}/versions/1)" in origin
    assert f"/runs/{candidate})" in origin
    assert "(http://127.0.0.1:8080/dags/churn_training_dag/runs/manual__1)" in origin
    assert len(opened.image) == 6


def test_missing_production_warns(page: Callable[..., AppTest], address: str) -> None:
    """Before the first promotion the heuristic answers, and nobody can take it for a model."""
    opened = page(address, "never-promoted")
    (warning,) = [one.value for one in opened.warning]
    assert "There is no Production model yet" in warning
    assert "`never-promoted`" in warning
    assert address in warning
    log_odds = -1 + 0.05 * 45 - 0.15 * 2 + 0.02 * 30
    assert shown(opened, "Probability of churn, by the heuristic") == f"{1 / (1 + math.exp(-log_odds)):.1%}"
    assert not opened.exception


def test_silent_server_is_told(page: Callable[..., AppTest]) -> None:
    """An MLflow that does not answer is named with its address, and the heuristic answers."""
    opened = page(NOBODY, "churn-model")
    (error,) = [one.value for one in opened.error]
    assert error == (
        f"MLflow at {NOBODY} does not answer (connection refused). "
        "Meanwhile a **heuristic** answers: a rule of thumb, not a trained model."
    )
    assert shown(opened, "Probability of churn, by the heuristic")
    assert not opened.exception


def test_unset_address_is_told(page: Callable[..., AppTest]) -> None:
    """Without an address the page says which setting is missing."""
    opened = page("", "churn-model")
    assert "MLFLOW_TRACKING_URI is not set" in opened.error[0].value


def test_broken_model_is_told(address: str, candidate: str) -> None:
    """A version whose files are not there is named, with the address of the MLflow that should have them."""
    name = f"churn-{uuid.uuid4().hex[:8]}"
    client = Registry(address).client()
    client.create_registered_model(name)
    tags = {DIGEST: "0" * 64}
    client.create_model_version(name, f"runs:/{candidate}/nothing", run_id=candidate, tags=tags, await_creation_for=0)
    client.set_registered_model_alias(name, "production", "1")
    seen = Shelf(Registry(address), name).look()
    assert seen.model is None
    assert f"MLflow at {address}" in (seen.problem or "")


def test_unrecorded_model_is_not_run(address: str, candidate: str) -> None:
    """A version registered without a digest of its files is not loaded; the command that records it is told."""
    name = f"churn-{uuid.uuid4().hex[:8]}"
    promote_candidate(address, candidate, name)
    client = Registry(address).client()
    client.delete_model_version_tag(name, "1", DIGEST)
    seen = Shelf(Registry(address), name).look()
    assert seen.model is None
    assert seen.problem == (
        f"{name}, version 1, is not loaded, because no digest of its files was recorded; "
        f"if you trust its files as they are now, `make trust-model MODEL={name} VERSION=1` records their digest"
    )


def test_changed_model_is_not_run(address: str, object_store: ObjectStore, tmp_path: Path) -> None:
    """Code that somebody put into the bucket in the place of a promoted model's is not run."""
    name, witness = f"churn-{uuid.uuid4().hex[:8]}", tmp_path / "it-ran"
    promote_candidate(address, log_candidate(address, Recipe().lacking("plots", "holdout", "shap")), name)
    store, client = object_store.client(), Registry(address).client()
    place = client.get_model_version_download_uri(name, "1").removeprefix("mlflow-artifacts:/")
    code = f"{place}/hand_made_model.py"
    found = store.get_object(Bucket=BUCKET, Key=code)["Body"].read()
    store.put_object(Bucket=BUCKET, Key=code, Body=f"open({str(witness)!r}, 'w')\n".encode() + found)
    seen = Shelf(Registry(address), name).look()
    assert seen.model is None
    assert f"{name}, version 1, is not loaded, because its files are not those that were recorded" in str(seen.problem)
    assert not witness.exists()


def test_digests_agree(tmp_path: Path) -> None:
    """The app computes the digest as the training does, which anyone can repeat with sha256sum."""
    (tmp_path / "b").mkdir()
    for path, text in (("b/two", "2"), ("a", "1"), ("b/c", ""), ("b.txt", "3")):
        (tmp_path / path).write_text(text)
    assert app_digest(tmp_path) == digest_of(tmp_path)
    assert digest_of(tmp_path) == "0735c412b38e6cdcdb3d5d449b7e56faf741520fbde3a37154f0c4d6605de652"


def test_new_version_is_noticed(address: str, candidate: str) -> None:
    """A promotion shows once the last answer is no longer fresh, and not a request sooner."""
    name, now = f"churn-{uuid.uuid4().hex[:8]}", [0.0]
    stand = Shelf(Registry(address), name, fresh_seconds=5, clock=lambda: now[0])
    assert stand.look().model is None
    promote_candidate(address, candidate, name)
    now[0] = 4.9
    assert stand.look().model is None
    now[0] = 5.0
    first = stand.look().model
    assert first is not None, stand.look().problem
    assert first.title == f"{name}, version 1"
    now[0] = 10.0
    assert stand.look().model is first, "the same version is loaded once"
    promote_candidate(address, log_candidate(address, Recipe(weights=WEAK).lacking("plots", "holdout")), name)
    now[0] = 15.0
    assert stand.look().model is not None
    assert stand.look().model.title == f"{name}, version 2"  # type: ignore[union-attr]  # the line above


def test_loaded_model_survives_mlflow(address: str, promoted: str) -> None:
    """While MLflow is away, the model loaded before goes on answering, and the problem is told."""
    stand = Shelf(Registry(address), promoted, fresh_seconds=0)
    before = stand.look().model
    stand.registry = Registry(NOBODY)
    seen = stand.look()
    assert seen.model is before
    assert seen.problem == f"MLflow at {NOBODY} does not answer (connection refused)"


def test_prediction_asks_nobody(address: str, promoted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model scores and explains a person in its own process: without MLflow, and without Java."""
    model = Shelf(Registry(address), promoted).look().model
    assert model is not None
    person = pd.DataFrame([{one.name: one.example for one in model.fields}])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    started = psutil.Process().children(recursive=True)
    score, explanation = model.score(person), model.explain(person)
    assert psutil.Process().children(recursive=True) == started
    assert 1 / (1 + math.exp(-explanation.score)) == pytest.approx(score["probability"].iloc[0], abs=1e-12)


def test_file_is_scored(page: Callable[..., AppTest], address: str, promoted: str) -> None:
    """An uploaded CSV comes back with the probabilities of the model; a bad one with a message."""
    opened = page(address, promoted)
    some = people(30, 3).drop(columns="churned")
    opened.file_uploader[0].upload("some.csv", some.to_csv(index=False).encode(), "text/csv").run()
    assert (shown(opened, "Rows"), shown(opened, "Scored")) == ("30", "30")
    scores = [expected(person) for person in some.to_dict("records")]
    leaving = sum(score >= THRESHOLD for score in scores)
    assert shown(opened, f"Likely to leave, {leaving / 30:.0%}") == str(leaving)
    preview = opened.dataframe[-1].value
    assert preview["probability"].to_list() == pytest.approx(scores, abs=1e-12)
    opened.file_uploader[0].set_value([("bad.csv", b"user_id\n1\n", "text/csv")]).run()
    assert opened.error[0].value.startswith("**bad.csv cannot be scored.** The file lacks 5 of 5 columns:")
    assert not opened.exception


FIELDS = (
    Field("days_since_last_payment", "number", 45.0),
    Field("payments", "integer", 2),
    Field("is_new", "boolean", True),
    Field("card", "text", "debit", levels=("credit", "debit")),
    Field("note", "text", optional=True),
)


class Counting:
    """A scorer whose probability is a hundredth of the payments, and that remembers what it was asked."""

    title, fields, threshold = "Counting", FIELDS, 0.5

    def __init__(self) -> None:
        self.asked: list[pd.DataFrame] = []

    def score(self, people: pd.DataFrame) -> pd.DataFrame:
        self.asked.append(people)
        probability = people["payments"] / 100
        churn = (probability >= self.threshold).astype("int64")
        return pd.DataFrame({"probability": probability, "prediction": churn}, index=people.index)

    def explain(self, person: pd.DataFrame) -> Explanation:
        return Explanation(0.0, dict.fromkeys(person, 0.0))


HEADER = "id,days_since_last_payment,payments,is_new,card,note\n"
ROWS = HEADER + "a,1.5,10,true,credit,\nb, 2 ,62,NO,debit,hello\n"


def scored(text: str | bytes, scorer: Any = None, **options: Any) -> Any:
    """Score a CSV given as a text."""
    content = text if isinstance(text, bytes) else text.encode()
    return score_csv(io.BytesIO(content), scorer or Counting(), **options)


@pytest.mark.parametrize(
    "text",
    [ROWS, "\ufeff" + ROWS, ROWS.replace("\n", "\r\n"), ROWS + "\n\n", ROWS.replace(",", ";"), ROWS.replace(",", "\t")],
    ids=["plain", "byte order mark", "windows", "blank lines", "semicolons", "tabs"],
)
def test_rows_are_scored(text: str) -> None:
    """Values become those of the signature; the file comes back as it was, with its results."""
    scorer = Counting()
    done = scored(text, scorer)
    (asked,) = scorer.asked
    assert asked.to_dict("records") == [
        {"days_since_last_payment": 1.5, "payments": 10, "is_new": True, "card": "credit", "note": None},
        {"days_since_last_payment": 2.0, "payments": 62, "is_new": False, "card": "debit", "note": "hello"},
    ]
    assert dict(asked.dtypes.astype(str)) == {
        "days_since_last_payment": "float64",
        "payments": "float64",
        "is_new": "bool",
        "card": "object",
        "note": "object",
    }
    delimiter = next(sign for sign in ",;\t" if sign in text)
    assert done.content.decode().replace(delimiter, ",") == (
        HEADER.replace("\n", ",probability,prediction,problem\n")
        + "a,1.5,10,true,credit,,0.1,0,\nb, 2 ,62,NO,debit,hello,0.62,1,\n"
    )
    assert (done.rows, done.scored, done.churning, done.problem_count) == (2, 2, 1, 0)
    assert (done.histogram[2], done.histogram[12], done.histogram.sum()) == (1, 1, 2)


@pytest.mark.parametrize(
    ("row", "column", "value", "wanted"),
    [
        ("x,,1,true,credit,", "days_since_last_payment", "", "a number, such as 12.5"),
        ('x,"1,5",1,true,credit,', "days_since_last_payment", "1,5", "a number, such as 12.5"),
        ("x,inf,1,true,credit,", "days_since_last_payment", "inf", "a number, such as 12.5"),
        ("x,nan,1,true,credit,", "days_since_last_payment", "nan", "a number, such as 12.5"),
        ("x,1,2.5,true,credit,", "payments", "2.5", "a whole number"),
        ("x,1,1e300,true,credit,", "payments", "1e300", "a whole number"),
        ("x,1,1,maybe,credit,", "is_new", "maybe", "true or false"),
        ("x,1,1,true", "(the row)", "x, 1, 1, true", "6 values, as the header has; there are 4"),
        ("x,1,1,true,credit,,9", "(the row)", "x, 1, 1, true, credit, , 9", "6 values, as the header has; there are 7"),
    ],
)
def test_bad_row_is_told(row: str, column: str, value: str, wanted: str) -> None:
    """A row that cannot be scored keeps its place without a score; its line, column and value are named."""
    done = scored(f"{ROWS}{row}\n")
    (problem,) = done.problems
    assert (problem.line, problem.column, problem.value, problem.expected) == (4, column, value, wanted)
    assert (done.rows, done.scored, done.problem_count) == (3, 2, 1)
    last = done.content.decode().splitlines()[-1]
    reason = f"expected {wanted}" if column == "(the row)" else f"{column}: expected {wanted}"
    assert last.replace('"', "").endswith(f",,,{reason}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty: its first line must name the columns."),
        (b"\n\n", "The file is empty: its first line must name the columns."),
        (HEADER.encode(), "The file has a header, but no rows below it."),
        (
            b"id,days_since_payment,payments,is_new,card\n1,2,3,4,5\n",
            (
                "The file lacks 2 of 5 columns: days_since_last_payment (is it days_since_payment?), note. "
                "It has: id, days_since_payment, payments, is_new, card. The template has the right header."
            ),
        ),
        (b"a,b,a\n", "The header names a column twice: 'a'. Rename or remove one."),
        ("año,b\n".encode("latin-1"), "The file is not UTF-8 text: it has the byte 0xf1. Save it as CSV in UTF-8."),
        (
            (ROWS + 'c,"1"2,3,true,credit,\n').encode(),
            "Line 4 is not CSV: ',' expected after '\"'. Correct its quotes.",
        ),
        (
            b"PK\x03\x04\x14\x00\x08\x08\x08\x00\xff\xfe",
            "The file is not UTF-8 text: it has the byte 0xff. Save it as CSV in UTF-8.",
        ),
    ],
    ids=["empty", "blank", "no rows", "missing columns", "column twice", "latin-1", "quotes", "a workbook"],
)
def test_unreadable_file_is_told(content: bytes, message: str) -> None:
    """A file that is no table of people is refused with one sentence that says what to do."""
    with pytest.raises(Unreadable) as error:
        scored(content)
    assert str(error.value) == message


def test_unknown_text_is_counted() -> None:
    """A text that the model did not see is scored, and how many there are is told."""
    done = scored(ROWS + "c,1,1,true,gold,\nd,1,1,true,platinum,\n")
    assert (done.scored, done.problem_count, done.unknown) == (4, 0, {"card": 2})


def test_chunks_do_not_matter() -> None:
    """A long file is scored in pieces, which leave no trace; the share that is done only grows."""
    rows = "".join(f"{n},{n},{n % 100},{'true' if n % 7 else 'perhaps'},debit,\n" for n in range(1_000))
    shares: list[float] = []
    whole, pieces = scored(HEADER + rows), scored(HEADER + rows, chunk_rows=7, progress=shares.append)
    assert whole.content == pieces.content
    assert (pieces.rows, pieces.scored, pieces.problem_count) == (1_000, 857, 143)
    assert pieces.problems == whole.problems
    assert len(pieces.problems) == SHOWN_PROBLEMS
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_scored_file_scores_again() -> None:
    """A file that was scored before gets new results in the place of the old ones."""
    once = scored(ROWS)
    assert scored(once.content).content == once.content


def test_template_is_scored() -> None:
    """The template is a file that the app takes."""
    text = template(FIELDS)
    assert text.decode() == "days_since_last_payment,payments,is_new,card,note\n45.0,2,true,debit,\n"
    assert scored(text).scored == 1


@pytest.mark.parametrize(
    ("days", "payments", "login", "expected_log_odds"),
    [(20, 4, 10, -0.4), (0, 20, 0, -4.0), (90, 0, 90, 5.3), (400, 0, 500, 5.3), (0, 99, 0, -4.0)],
)
def test_heuristic_is_as_documented(days: float, payments: float, login: float, expected_log_odds: float) -> None:
    """The formula on the page is the one that answers, and its explanation adds up to the answer."""
    person = pd.DataFrame([{"days_since_last_payment": days, "payments": payments, "days_since_login": login}])
    score = Heuristic().score(person).iloc[0]
    assert score["probability"] == pytest.approx(1 / (1 + math.exp(-expected_log_odds)))
    assert score["prediction"] == int(expected_log_odds >= 0)
    assert Heuristic().explain(person).score == pytest.approx(expected_log_odds)


def test_explanation_is_worded() -> None:
    """The largest contributions come first, in the words of the form; nothing is said of what has no effect."""
    explanation = Explanation(-1.0, {"payments": -0.2, "is_new": 0.7, "card": 0.0})
    fields = [one for one in FIELDS if one.name in explanation.contributions]
    values = {"payments": 12, "is_new": True, "card": "debit"}
    assert sentences(explanation, fields, values) == [
        "**Is new: yes** multiplies the odds of churn by 2.01.",
        "**Payments: 12** divides the odds of churn by 1.22.",
    ]
    assert sentences(Explanation(0.3, {"payments": -0.02}, "probability"), fields, values) == [
        "**Payments: 12** lowers the probability of churn by 2.0 points."
    ]
    steps = waterfall(explanation, fields, values).to_dict()["datasets"]
    (bars,) = [rows for rows in steps.values() if "label" in rows[0]]
    assert [(row["label"], row["start"], row["end"], row["text"]) for row in bars] == [
        ("Is new: yes", -1.0, pytest.approx(-0.3), "× 2.01"),
        ("Payments: 12", pytest.approx(-0.3), -0.5, "÷ 1.22"),
        ("Card: debit", -0.5, -0.5, "no effect"),
    ]
