"""Specification of the results: figures by group, comparisons, gates, Meta's shapes, the page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.errors import Misconfigured
from pipeline.evaluate import formats, gate, meta_shape, recorded, report, results, summary
from pipeline.evaluate import session as evaluation
from pipeline.evaluate.compare import compare
from pipeline.evaluate.contenders import Answer, Point
from pipeline.evaluate.items import DataSet, Head, Item, known
from pipeline.evaluate.recorded import Recorded
from pipeline.evaluate.results import Measured
from pipeline.evaluate.runs import Run

DATA = Path(__file__).parents[1] / "data" / "evaluate"


def measured(
    scores: Sequence[float | Mapping[str, float]],
    truths: Sequence[bool],
    name: str = "ours",
    **each: Sequence[object],
) -> Measured:
    """Results of scores given by hand; `each` sets fields of the items one by one."""
    items = [
        Item(id=str(n), text=f"secret {n}", hazard=truth, attack=truth,
             **{field: values[n] for field, values in each.items()})
        for n, truth in enumerate(truths)
    ]  # fmt: skip
    data = DataSet(name="set", format="jsonl", items=items, heads=(Head.HAZARD,))
    return of(data, scores, name)


def of(data: DataSet, scores: Sequence[float | Mapping[str, float]], name: str) -> Measured:
    """Results of a set for its first head, flagged from one half on."""
    answers = [Answer(scores=s if isinstance(s, Mapping) else {"score": s}) for s in scores]
    contender = Recorded(name, Path("x"), {}, Point(name="half"))
    run = Run(contender=contender, data=data, answers=answers, speeds=[])
    found = results.measure(run, data.heads[0], draws=100)
    assert found is not None
    return found


def distributed(file: str, scores: Sequence[float]) -> Measured:
    """Results of a sample file under scores given by hand."""
    return of(formats.load(str(DATA / file), formats.Options(columns={})), scores, "ours")


def test_items_without_score_or_label_do_not_count() -> None:
    """Unscored items are told apart and stay out of every figure."""
    found = measured([0.9, 0.1, {}], [True, False, True])
    assert (found.items, found.positives, found.unscored) == (2, 1, 1)
    assert found.figures["recall"].value == 1.0
    assert found.key == "set"


def test_categories_skip_what_is_unknown() -> None:
    """A category is ranked against items known not to be of it, no others."""
    truths = [True] * 12 + [False] * 6
    labels = [known(["S1"] if n < 6 else ["S2"], positive=truth) for n, truth in enumerate(truths)]
    # The S2 items score highest for S1, but nobody said that they are not S1 as well.
    scores = [{"unsafe": 0.8, "S1": 0.6 if n < 6 else 0.9 if n < 12 else 0.1} for n in range(18)]
    first, second = measured(scores, truths, categories=labels).categories
    assert (first.name, first.items, first.positives) == ("S1", 12, 6)
    assert (first.auprc, first.roc_auc, first.recall) == (1.0, 1.0, 1.0)
    assert (second.name, second.auprc) == ("S2", None)


def test_languages_are_measured_apart() -> None:
    """Each language has its own recall and FPR; one language alone has no table."""
    languages = ["en", "en", "de", "de", "de"]
    found = measured([0.9, 0.1, 0.2, 0.8, 0.1], [True, False, True, False, False],
                     language=languages).languages  # fmt: skip
    assert [(one.name, one.items, one.recall, one.fpr) for one in found] == [
        ("de", 3, 0.0, 0.5), ("en", 2, 1.0, 0.0),
    ]  # fmt: skip
    assert not measured([0.9, 0.1], [True, False], language=["en", "en"]).languages


def test_groups_of_the_source_are_measured_apart() -> None:
    """Direct and indirect injections, and every other tag, have their own recall."""
    found = distributed("injection.json", [0.9, 0.2, 0.7]).tags
    assert [(one.name, one.items, one.recall) for one in found["injection_type"]] == [
        ("direct", 2, 0.5), ("indirect", 1, 1.0),
    ]  # fmt: skip
    assert "speaking_language" not in found


def test_confusion_counts_label_by_highest_category_of_the_flagged() -> None:
    """Rows are labels, columns the guard's category, with one for what it let through."""
    labels = [known(["S1"], positive=True), known(["S2"], positive=True), known([], positive=False)]
    scores = [{"unsafe": u, "S1": 0.7, "S2": 0.3} for u in (0.9, 0.1, 0.6)]
    rows, columns, counts = results.confusion(
        measured(scores, [True, True, False], categories=labels)
    )
    assert (rows, columns) == (["safe", "S1", "S2"], ["S1", "not flagged"])
    assert counts.tolist() == [[1, 0], [1, 0], [0, 1]]


def test_two_guards_disagree_where_one_flags() -> None:
    """The list says who flagged and who was right, the widest apart first."""
    truths = [True, False, True, False]
    ours = measured([0.9, 0.6, 0.8, 0.1], truths)
    theirs = measured([0.2, 0.4, 0.9, 0.2], truths, "theirs")
    found = compare(ours, theirs, draws=100)
    assert [(one.id, one.flagged_by, one.right) for one in found.disagreements] == [
        ("0", "ours", "ours"), ("1", "ours", "theirs"),
    ]  # fmt: skip
    assert found.differences["recall"].value == pytest.approx(0.5)
    assert found.differences["fpr"].value == pytest.approx(0.5)
    low, high = found.differences["auprc"].low, found.differences["auprc"].high
    assert low <= found.differences["auprc"].value <= high


def test_two_guards_are_compared_on_what_both_scored() -> None:
    """An item that one could not score is left out of the comparison."""
    ours = measured([0.9, {}, 0.1], [True, True, False])
    theirs = measured([0.9, 0.9, {}], [True, True, False], "theirs")
    assert compare(ours, theirs, draws=10).items == 1


@pytest.mark.parametrize(
    ("bound", "line"),
    [
        ("set.recall=0.5", None),
        ("set.recall>=0.51", "set.recall >= 0.51: ours has 0.5000"),
        ("set.fpr<=0.5", "set.fpr <= 0.5: ours has 1.0000"),
        ("theirs/set.recall=0.9", None),
        ("ours/set.precision <= 0.9", None),
    ],
)
def test_a_bound_is_breached_only_when_it_is_passed(bound: str, line: str | None) -> None:
    """A figure equal to its bound holds; the first guard is meant unless one is named."""
    truths = [True, True, False]
    both = [measured([0.9, 0.1, 0.6], truths), measured([0.9, 0.9, 0.1], truths, "theirs")]
    assert list(gate.breaches(gate.parse([bound]), both, "ours")) == ([line] if line else [])


def test_a_bound_on_a_figure_that_is_not_there_is_breached() -> None:
    """An all-positive set has no AUPRC: a gate on it must not pass in silence."""
    (line,) = gate.breaches(gate.parse(["set.auprc=0.1"]), [measured([0.9], [True])], "ours")
    assert line == "set.auprc >= 0.1: ours has no such figure on this set"


def test_a_bound_is_about_the_first_contender_even_where_only_the_second_is_measured() -> None:
    """Another's figures must not pass the gate for it."""
    theirs = [measured([0.9, 0.1], [True, False], "theirs")]
    (line,) = gate.breaches(gate.parse(["set.auprc=0.5"]), theirs, "ours")
    assert line == "set.auprc >= 0.5: ours has no such figure on this set"


def test_a_bound_is_breached_where_an_item_has_no_score() -> None:
    """A filter that fails on what is hard would pass by the rest."""
    part = [measured([0.9, 0.1, {}], [True, False, True])]
    (line,) = gate.breaches(gate.parse(["set.auprc=0.5"]), part, "ours")
    assert line == "set.auprc >= 0.5: 1 items have no score of ours"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("set.auprc", "is not a bound"),
        ("set.auc=1", "the figure 'auc'"),
        ("set.fpr=0.08", "false positives"),
    ],
)
def test_a_bound_that_cannot_be_meant_is_refused(text: str, told: str) -> None:
    """A bound's own words come back, with the way to write it."""
    with pytest.raises(Misconfigured, match=told):
        gate.parse([text])


def test_a_bound_on_an_unknown_set_or_guard_is_refused_before_the_run() -> None:
    """Misspelt sets end it at once, not after an hour."""
    with pytest.raises(Misconfigured, match="set 'xtest'"):
        gate.check_keys(gate.parse(["xtest.f1=1"]), ["xstest"], ["a"])
    with pytest.raises(Misconfigured, match="'b'"):
        gate.check_keys(gate.parse(["b/xstest.f1=1"]), ["xstest"], ["a"])


@pytest.mark.parametrize("name", ["meta/llama-guard", "my guard", "a/b c", "set.f1=0"])
def test_a_bound_may_name_a_guard_that_is_called_anything(name: str) -> None:
    """The last slash stands before the set: names of models hold slashes and spaces."""
    (bound,) = gate.parse([f" {name}/set.recall >= 0.5 "])
    assert (bound.guard, bound.key, bound.name, bound.value) == (name, "set", "recall", 0.5)
    gate.check_keys([bound], ["set"], [name])


def test_injection_results_have_metas_shape() -> None:
    """A flagged injection did not succeed; groups by variant, type, risk and language."""
    found = meta_shape.result(distributed("injection.json", [0.9, 0.2, 0.7]))
    assert found is not None
    assert found["ours"]["stat_per_model"] == {
        "injection_successful_count": 1,
        "injection_unsuccessful_count": 2,
        "total_count": 3,
        "injection_successful_percentage": pytest.approx(1 / 3),
        "injection_unsuccessful_percentage": pytest.approx(2 / 3),
    }
    types = found["ours"]["stat_per_model_per_injection_type"]
    assert {name: one["total_count"] for name, one in types.items()} == {"direct": 2, "indirect": 1}
    assert found["sluice"]["point"] == "half"


def test_refusal_and_interpreter_results_have_metas_shape() -> None:
    """A flagged harmless request is a refusal; abuse let through is malicious."""
    refused = meta_shape.result(distributed("frr.json", [0.9, 0.2]))
    assert refused is not None
    assert refused["ours"] == {"accept_count": 1, "refusal_count": 1, "refusal_rate": 0.5}
    abused = meta_shape.result(distributed("interpreter.json", [0.9, 0.2]))
    assert abused is not None
    assert abused["ours"]["Container Escapes"] == {
        "is_extremely_malicious": 1,
        "is_potentially_malicious": 0,
        "is_non_malicious": 0,
        "total_count": 1,
        "malicious_percentage": 1.0,
    }
    assert meta_shape.result(measured([0.9], [True])) is None


def test_recorded_scores_give_the_same_figures_again(tmp_path: Path) -> None:
    """What --out writes is what --recorded reads: figures and flags come back."""
    one = measured([0.9, 0.4, 0.6, 0.1], [True, True, False, False])
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b"".join(summary.scores([one.run])))
    assert b"secret" not in path.read_bytes()
    (again,) = recorded.load(str(path), 0.99)
    answers = [again._answers["set", item.id] for item in one.run.data.items]
    run = Run(contender=again, data=one.run.data, answers=answers, speeds=[])
    found = results.measure(run, Head.HAZARD, draws=100)
    assert found is not None
    assert found.figures == one.figures


def test_a_sample_is_the_same_every_time_and_says_so() -> None:
    """--limit takes the same items in the set's order, and notes it."""
    items = [Item(id=str(n), text="t", hazard=bool(n % 2)) for n in range(100)]
    data = DataSet(name="d", format="jsonl", items=items, heads=(Head.HAZARD,))
    one, two = (evaluation.prepared(data, None, 10) for _ in range(2))
    ids = [int(item.id) for item in one.items]
    assert one == two
    assert ids == sorted(ids)
    assert one.notes == ("a sample of 10 of 100 items",)
    with pytest.raises(Misconfigured, match="no labels for the head attack"):
        evaluation.prepared(data, Head.ATTACK, 0)


class Tags(HTMLParser):
    """Collects the elements and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the name, and what it points to."""
        self.names.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action"}
        ]


def page(*, show_text: bool) -> str:
    """The report of two guards that disagree, with a breached gate."""
    truths = [True, False] * 6
    labels = [known(["S1"], positive=truth) for truth in truths]
    scores = [{"unsafe": 0.9 if n % 2 else 0.4, "S1": 0.5, "S2": 0.1} for n in range(12)]
    ours = measured(scores, truths, "<b>ours</b>", categories=labels)
    theirs = measured([0.7, 0.2] * 6, truths, "theirs", categories=labels)
    found = [compare(ours, theirs, draws=20)]
    lines = ["set.f1 >= 1: <b>ours</b> has 0.0"]
    return report.render([ours, theirs], found, ["set.f1 >= 1"], lines, show_text=show_text)


def test_the_page_stands_alone() -> None:
    """No script, nothing fetched, light and dark and print styles, pictures inline."""
    pytest.importorskip("matplotlib")
    html, tags = page(show_text=False), Tags()
    tags.feed(html)
    assert "script" not in tags.names
    assert tags.names.count("svg") == 3
    assert all(address.startswith("#") for address in tags.addresses)
    assert not re.search(r"url\((?!['\"]?#)|@import", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_page_escapes_names_and_keeps_texts_back() -> None:
    """Names cannot inject markup; item texts show only when asked for."""
    pytest.importorskip("matplotlib")
    html = page(show_text=False)
    assert "<b>ours</b>" not in html
    assert "secret" not in html
    assert "secret" in page(show_text=True)


def test_the_document_has_no_text_unless_asked() -> None:
    """summary.json is JSON without NaN, and holds texts only with --show-text."""
    truths = [True, False]
    ours, theirs = measured([0.9, 0.1], truths), measured([0.1, 0.2], truths, "theirs")
    found = [compare(ours, theirs, draws=10)]
    quiet = summary.document([ours, theirs], found, [], show_text=False)
    told = summary.as_json(summary.document([ours, theirs], found, [], show_text=True))
    assert "secret" not in json.dumps(quiet)
    assert b"secret 0" in told
    assert b"NaN" not in told
    assert json.loads(told)["results"][0]["base_rate"] == 0.5
