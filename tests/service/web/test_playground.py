from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from service.access.keys import line_of
from tests.bundles import Spec, write_bundle
from tests.changes import change, make
from tests.service.serving import in_this_process
from tests.service.web.browser import PHONE, Playground, opened
from tests.service.web.conftest import GROUPS, LABELS, NASTY, NASTY_LABELS

TEXT = "a fast web server"


def served(playground: Playground, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The labels that the service answers, asked without the page."""
    response = playground.page.request.post(f"{playground.url}/predict", data=body)
    assert response.ok, response.text()
    labels: list[dict[str, Any]] = response.json()["predictions"][0]["labels"]
    return labels


def ids(labels: list[dict[str, Any]]) -> list[str]:
    return [label["id"] for label in labels]


def shares(playground: Playground) -> list[float]:
    """How much of each bar is filled."""
    read = "bars => bars.map(bar => Number(bar.style.getPropertyValue('--share')))"
    found: list[float] = playground.page.locator("#results .bar").evaluate_all(read)
    return found


def test_typing_shows_labels_with_bars(playground: Playground) -> None:
    playground.open()
    playground.query.press_sequentially(TEXT)
    labels = served(playground, {"queries": [TEXT], "model": "tags"})
    items = playground.columns.locator("ol > li")
    # Who types slowly sees labels of what was typed first.
    expect(items.locator(".label")).to_have_text([label["text"] for label in labels])
    shown = playground.wait_for_labels(5)
    assert shown == ids(labels)
    scores = [float(text) for text in items.locator(".score").all_inner_texts()]
    assert scores == pytest.approx([label["score"] for label in labels], rel=1e-3)
    # A probability fills its share of the bar.
    assert shares(playground) == pytest.approx(scores, rel=1e-3)
    expect(playground.columns).to_contain_text("Scores are probabilities.")
    expect(playground.status).to_have_text(f"tags: 5 labels, first {shown[0]}.")
    playground.screenshot("labels")


def test_bars_of_raw_scores_fill_the_room_between_the_least_and_the_largest(playground: Playground) -> None:
    playground.open("#model=titles&k=4")
    playground.ask(TEXT, 4)
    scores = [label["score"] for label in served(playground, {"queries": [TEXT], "model": "titles", "k": 4})]
    expected = [(score - scores[-1]) / (scores[0] - scores[-1]) for score in scores]
    assert shares(playground) == pytest.approx(expected, abs=1e-6)
    expect(playground.columns).to_contain_text("Scores are raw")


def test_a_pause_in_typing_asks_once(playground: Playground) -> None:
    playground.page.clock.install()
    playground.open()
    playground.page.clock.pause_at(playground.page.evaluate("Date.now() + 1000"))
    for letter in TEXT:
        playground.query.press_sequentially(letter)
        playground.page.clock.run_for(70)
    assert playground.asked() == []
    with playground.page.expect_response("**/predict"):
        playground.page.clock.run_for(10)
    assert [body["queries"] for body in playground.asked()] == [[TEXT]]


def test_an_answer_that_comes_late_never_replaces_a_newer_one(playground: Playground) -> None:
    playground.open()
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    playground.page.route("**/predict", hold_the_first)
    with playground.page.expect_request("**/predict"):
        playground.query.fill("mail")
    # The page gives the first one up when more is typed, so that the service need not compute it.
    with playground.page.expect_event("requestfailed") as given_up:
        playground.query.fill(TEXT)
    shown = playground.wait_for_labels(5)
    assert given_up.value.post_data_json["queries"] == ["mail"]
    held[0].continue_()
    playground.settle()
    assert playground.ids() == shown == ids(served(playground, {"queries": [TEXT], "model": "tags"}))
    assert shown != ids(served(playground, {"queries": ["mail"], "model": "tags"}))


def test_a_model_that_is_described_late_never_replaces_the_one_that_is_chosen(playground: Playground) -> None:
    playground.open()
    shown = playground.ask(TEXT, 5)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    playground.page.route("**/v1/models/titles", hold)
    with playground.page.expect_request("**/v1/models/titles"):
        playground.page.get_by_label("Model").select_option("titles")
    playground.page.get_by_label("Model").select_option("tags")
    assert playground.wait_for_labels(5) == shown
    with playground.page.expect_response("**/v1/models/titles") as late:
        held[0].continue_()
    late.value.finished()
    playground.page.evaluate("new Promise(done => setTimeout(done))")
    assert playground.ids() == shown
    expect(playground.status).to_have_text(f"tags: 5 labels, first {shown[0]}.")
    assert playground.page.locator("#groups input").count() == len(GROUPS)


def test_k_is_how_many_labels_come(playground: Playground) -> None:
    playground.open()
    playground.ask(TEXT, 5)
    playground.page.get_by_label("Labels (k)").fill("7")
    assert len(playground.wait_for_labels(7)) == 7


def test_the_model_that_is_chosen_answers(playground: Playground) -> None:
    playground.open()
    playground.ask(TEXT, 5)
    playground.page.get_by_label("Model").select_option("titles")
    playground.settle()
    expect(playground.columns.locator("h2")).to_contain_text("titles")
    assert playground.ids() == ids(served(playground, {"queries": [TEXT], "model": "titles"}))


def test_versions_of_a_model_can_be_chosen(browser: Browser, bundles: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "older", Spec(name="tags", seed=1))
    with (
        in_this_process(bundles / "tags", tmp_path / "older") as (service, port),
        opened(browser, f"http://127.0.0.1:{port}") as playground,
    ):
        playground.open()
        newer, older = (model.identity for model in service.registry.models)
        offered = playground.page.locator("#model option").all_inner_texts()
        assert offered == ["tags (2 versions, by weight)", newer, older]
        playground.page.get_by_label("Model").select_option(older)
        shown = playground.ask(TEXT, 5)
        expect(playground.columns.locator("h2")).to_contain_text(older.removeprefix("tags:"))
        assert shown == ids(served(playground, {"queries": [TEXT], "model": older}))
        # Each version has its own kind of scores.
        expect(playground.columns).to_contain_text("Scores are raw")
        playground.page.get_by_label("Model").select_option(newer)
        expect(playground.columns).to_contain_text("Scores are probabilities.")
        playground.check()


def test_two_models_side_by_side(playground: Playground) -> None:
    playground.open("#k=20")
    playground.ask(TEXT, 20)
    playground.page.get_by_label("Compare with").select_option("titles")
    left, right = (playground.wait_for_labels(20, column) for column in (0, 1))
    assert right == ids(served(playground, {"queries": [TEXT], "model": "titles", "k": 20}))
    shared = set(left) & set(right)
    assert 0 < len(shared) < 20
    for column, (own, other) in enumerate(((left, right), (right, left))):
        marked = playground.columns.nth(column).locator("li.shared")
        assert marked.locator(".id").all_inner_texts() == [label for label in own if label in shared]
        places = [f"Also there, at place {other.index(label) + 1}" for label in own if label in shared]
        assert marked.locator(".mark").all_inner_texts() == places
    agreement = f"agreement@20: {len(shared)} of 20 labels ({round(5 * len(shared))} %)"
    expect(playground.page.locator("#agreement")).to_have_text(agreement)
    playground.screenshot("compare")
    playground.page.get_by_label("Compare with").select_option("")
    expect(playground.columns).to_have_count(1)
    expect(playground.page.locator("#agreement")).to_be_hidden()


def test_filters_are_ids_and_groups(playground: Playground) -> None:
    playground.open("#k=40")
    playground.ask(TEXT, LABELS)
    page = playground.page
    page.get_by_text("Filters").click()
    page.get_by_label("Only these labels").fill("label-03, label-04\nlabel-05,\n label-06")
    allowed = {"label-03", "label-04", "label-05", "label-06"}
    assert set(playground.wait_for_labels(4)) == allowed
    page.get_by_label("Not these labels").fill("label-04")
    assert set(playground.wait_for_labels(3)) == allowed - {"label-04"}
    page.get_by_label("Only these labels").fill("")
    page.get_by_label("Not these labels").fill("")
    sizes = page.request.get(f"{playground.url}/v1/models/tags").json()["groups"]
    box = page.get_by_role("group", name="Only labels of these groups").get_by_label(f"shapes ({sizes['shapes']})")
    box.check()
    shown = playground.wait_for_labels(sizes["shapes"])
    filtered = {"queries": [TEXT], "model": "tags", "k": LABELS, "filter": {"groups": ["shapes"]}}
    assert shown == ids(served(playground, filtered))
    page.wait_for_url("**/#*group=shapes*")
    page.reload()
    assert playground.wait_for_labels(sizes["shapes"]) == shown
    expect(box).to_be_checked()
    # A model without groups shows none.
    page.goto(f"{playground.url}/#model=titles")
    page.reload()
    playground.settle()
    expect(page.locator("#groups")).to_be_hidden()


def test_an_explanation_opens_in_place_and_stays_open(playground: Playground) -> None:
    playground.open("#k=3")
    shown = playground.ask(TEXT, 3)
    assert playground.page.get_by_text("Why").count() == 0
    playground.page.get_by_label("Explain").check()
    first = playground.columns.locator("ol > li").first
    first.get_by_text("Why").focus()
    playground.page.keyboard.press("Enter")
    label = served(playground, {"queries": [TEXT], "model": "tags", "k": 3, "explain": True})[0]
    why = label["explanation"]
    assert first.locator("details > .tree > div > dt").all_inner_texts() == list(why)
    head, *rows = first.get_by_role("row").all_inner_texts()
    assert head.split("\t") == list(why["repetitions"][0])
    numbers = [[float(cell) for cell in row.split("\t")] for row in rows]
    assert numbers == [pytest.approx(list(part.values()), rel=1e-3) for part in why["repetitions"]]
    playground.screenshot("explanation")
    # What is open stays open, label by label, while labels come and go.
    playground.page.get_by_label("Labels (k)").fill("2")
    assert playground.wait_for_labels(2) == shown[:2]
    opened = playground.columns.locator("li").evaluate_all("all => all.map(one => one.querySelector('details').open)")
    assert opened == [True, False]


def test_an_explanation_of_another_shape_is_a_tree_to_read(playground: Playground) -> None:
    explanation = {"some_parts": {"deep": [1, [2.345678, None]], "yes": True}, "none": [], "text": NASTY}
    label = {"id": "a", "score": 1, "explanation": explanation}
    answer = {"model": "titles", "version": "x", "predictions": [{"labels": [label]}]}
    playground.may_be_refused = True
    playground.page.route("**/predict", lambda route: route.fulfill(json=answer))
    playground.page.route("**/v1/models/titles%3Ax", lambda route: route.fulfill(json={"scores": "raw"}))
    playground.open("#model=titles")
    playground.ask(TEXT, 1)
    playground.unfold()
    text = playground.columns.locator("li details").inner_text()
    assert text.split() == [
        "Why",
        "some",
        "parts",
        "deep",
        "1",
        "2.346",
        "null",
        "yes",
        "true",
        "none",
        "text",
        *NASTY.split(),
    ]


def test_times_of_the_service_and_of_the_way(playground: Playground) -> None:
    playground.open()
    with playground.page.expect_response("**/predict") as response:
        playground.query.fill(TEXT)
    playground.wait_for_labels(5)
    stages = [part.split(";dur=") for part in response.value.headers["server-timing"].split(", ")]
    shown = [text.split("\n") for text in playground.page.locator(".timing > div").all_inner_texts()]
    assert shown[:-1] == [[name, f"{float(milliseconds):.2f} ms"] for name, milliseconds in stages]
    name, round_trip = shown[-1]
    assert name == "round trip"
    assert float(round_trip.removesuffix(" ms")) >= sum(float(milliseconds) for _, milliseconds in stages)


def test_features_are_typed_as_pairs(playground: Playground) -> None:
    playground.open("#model=vectors")
    expect(playground.page.get_by_label("Features")).to_be_visible()
    playground.query.fill("7:0.5 x")
    expect(playground.status).to_have_text("Expected index:value pairs such as 7:0.5, found x.")
    assert playground.asked() == []
    playground.query.fill("7:0.5\n0:-1e0")
    playground.wait_for_labels(5)
    features = [{"indices": [7, 0], "values": [0.5, -1]}]
    assert playground.asked()[-1]["features"] == features
    # Models for texts cannot be asked the same.
    expect(playground.page.locator("#compare option:disabled")).to_have_text(["tags (40 labels)", "titles (40 labels)"])
    # These labels have no texts.
    labels = playground.page.locator("ol > li .label").all_inner_texts()
    assert labels == ids(served(playground, {"features": features, "model": "vectors"}))


@pytest.mark.parametrize(("model", "example"), [("tags", TEXT), ("vectors", "0:1 7:0.5")])
def test_examples_of_the_model_are_a_start(playground: Playground, model: str, example: str) -> None:
    playground.open(f"#model={model}")
    playground.page.get_by_role("group", name="Examples").get_by_role("button", name=example, exact=True).click()
    playground.settle()
    expect(playground.query).to_have_value(example)
    expect(playground.query).to_be_focused()
    expect(playground.page.locator("ol > li")).to_have_count(5)


def test_a_link_brings_everything_back(playground: Playground) -> None:
    playground.open()
    playground.ask("fast & small\nweb+server #1 %", 5)
    playground.page.get_by_label("Model").select_option("titles")
    playground.page.get_by_label("Compare with").select_option("tags")
    playground.page.get_by_label("Labels (k)").fill("3")
    first, second = (playground.wait_for_labels(3, column) for column in (0, 1))
    playground.page.wait_for_url("**/#*k=3*")
    link = playground.page.url
    playground.page.goto("about:blank")
    playground.page.goto(link)
    assert [playground.wait_for_labels(3, column) for column in (0, 1)] == [first, second]
    expect(playground.query).to_have_value("fast & small\nweb+server #1 %")
    expect(playground.page.get_by_label("Model")).to_have_value("titles")
    # A link that is followed on the page itself does the same.
    playground.page.evaluate("location.hash = 'query=mail&k=2'")
    expect(playground.columns).to_have_count(1)
    assert playground.wait_for_labels(2) == ids(served(playground, {"queries": ["mail"], "model": "tags", "k": 2}))


@pytest.mark.parametrize("text", [TEXT, "it's a 'fast' \"web\"\n$HOME `id` \\ é <!> server"])
def test_the_copied_command_gives_the_same_labels(playground: Playground, text: str) -> None:
    playground.open("#k=4")
    shown = playground.ask(text, 4)
    playground.page.get_by_role("button", name="Copy as curl").click()
    expect(playground.status).to_have_text("The command is copied.")
    command = playground.page.evaluate("navigator.clipboard.readText()")
    answer = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout)
    assert ids(answer["predictions"][0]["labels"]) == shown


def test_a_browser_that_lets_no_page_copy_shows_the_command(playground: Playground) -> None:
    playground.page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    playground.open()
    playground.ask(TEXT, 5)
    playground.page.get_by_role("button", name="Copy as curl").click()
    command = playground.page.get_by_role("group", name="Command").inner_text()
    assert command.startswith(f"curl -s '{playground.url}/predict' ")
    assert playground.page.evaluate("getSelection().toString()").split() == command.split()


def test_the_page_works_below_a_prefix_of_a_proxy(playground: Playground) -> None:
    def proxy(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/below/", "/")))

    playground.page.route("**/*", proxy)
    playground.page.goto(f"{playground.url}/below/")
    assert playground.ask(TEXT, 5) == ids(served(playground, {"queries": [TEXT], "model": "tags"}))
    assert [sent.url for sent in playground.requests if not sent.url.startswith(f"{playground.url}/below/")] == []
    expect(playground.page.locator(".command pre")).to_contain_text(f"{playground.url}/below/predict")


def test_texts_never_become_markup(playground: Playground) -> None:
    playground.open(f"#k={LABELS}")
    playground.ask(NASTY, LABELS)
    assert set(NASTY_LABELS) < set(playground.page.locator("ol > li .label").all_inner_texts())
    assert playground.page.locator("#results :is(img, script, b)").count() == 0
    playground.page.wait_for_url("**/#*query=*")
    playground.page.reload()
    playground.wait_for_labels(LABELS)
    expect(playground.query).to_have_value(NASTY)
    # A name in a link is nobody's markup either.
    playground.may_be_refused = True
    playground.page.evaluate("location.hash = 'query=a&model=<img src=x onerror=alert(1)>'")
    expect(playground.status).to_contain_text("no model '<img src=x onerror=alert(1)>' is loaded")
    assert playground.page.locator("img").count() == 0


def test_a_refusal_is_the_services_own_sentence(playground: Playground) -> None:
    playground.may_be_refused = True
    playground.open()
    playground.ask(TEXT, 5)
    playground.page.get_by_label("Labels (k)").fill("1000")
    expect(playground.columns).to_contain_text("k: expected at most 100, found 1000.")
    expect(playground.status).to_have_text("No answer from tags.")
    playground.page.get_by_label("Labels (k)").fill("2")
    playground.wait_for_labels(2)


def test_a_service_that_is_away_is_asked_again(playground: Playground) -> None:
    playground.open()
    playground.page.context.set_offline(True)
    playground.query.fill(TEXT)
    expect(playground.columns).to_contain_text("The service cannot be reached.")
    expect(playground.status).to_contain_text("Asking again in 1 s.")
    playground.page.context.set_offline(False)
    playground.wait_for_labels(5)
    assert {line.split(" ")[-1] for line in playground.complaints} == {"net::ERR_INTERNET_DISCONNECTED"}
    playground.complaints.clear()


def test_keys_are_asked_for_kept_in_the_tab_and_left_out_of_commands(
    browser: Browser, bundles: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(line_of("someone", "secret", ["rate=0.5", "burst=1"]))
    with (
        in_this_process(bundles / "tags", api_keys_file=tmp_path / "keys") as (_, port),
        opened(browser, f"http://127.0.0.1:{port}") as playground,
    ):
        playground.may_be_refused = True
        playground.open()
        expect(playground.status).to_contain_text("expected a key")
        field = playground.page.get_by_label("API key")
        field.fill("wrong")
        field.press("Enter")
        expect(playground.status).to_contain_text("found one that is not known")
        field.fill("secret")
        field.press("Enter")
        expect(playground.status).to_have_text("Type, and labels appear here.")
        shown = playground.ask(TEXT, 5)
        playground.page.get_by_role("button", name="Copy as curl").click()
        command = playground.page.evaluate("navigator.clipboard.readText()")
        assert "secret" not in command
        # The key may ask every other second: the page waits as it is told to, then asks again by itself.
        playground.page.get_by_label("Labels (k)").fill("2")
        expect(playground.status).to_contain_text("Asking again in ")
        expect(playground.columns).to_contain_text("someone")
        assert playground.wait_for_labels(2) == shown[:2]
        playground.page.reload()
        expect(field).to_have_value("secret")
        playground.wait_for_labels(2)
        assert playground.page.evaluate("localStorage.length") == 0
        assert "secret" not in playground.page.url
        playground.check()


def test_everything_is_reached_by_keyboard(playground: Playground) -> None:
    playground.open("#k=2")
    page = playground.page
    expect(playground.query).to_be_focused()
    page.keyboard.type(TEXT)
    playground.wait_for_labels(2)

    def tab_to(selector: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#examples button")
    tab_to("#model")
    tab_to("#compare")
    page.keyboard.type("ti")
    expect(playground.columns).to_have_count(2)
    tab_to("#k")
    page.keyboard.press("ArrowUp")
    playground.wait_for_labels(3)
    tab_to("#explain")
    tab_to("#filters summary")
    page.keyboard.press("Enter")
    tab_to("#allow")
    tab_to("#deny")
    tab_to("#results button")
    page.keyboard.press("Enter")
    expect(playground.status).to_have_text("The command is copied.")
    tab_to(".command summary")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Command").first).to_be_visible()


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, url: str) -> None:
    with opened(browser, url, viewport=PHONE, is_mobile=True, has_touch=True) as playground:
        playground.open(f"#compare=titles&k={LABELS}&explain=1")
        playground.ask("x" * 300, LABELS)
        playground.unfold()
        assert playground.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        playground.columns.first.evaluate("column => column.scrollIntoView()")
        playground.screenshot("phone")
        playground.check()


def test_a_label_that_was_added_is_marked(browser: Browser, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", Spec(name="tags", method="unidec"))
    with in_this_process(tmp_path / "bundle") as (service, port):
        make(service.engine, change({"new": TEXT}))
        with opened(browser, f"http://127.0.0.1:{port}") as playground:
            playground.open()
            assert playground.ask(TEXT, 5)[0] == "new"
            first, second = playground.columns.locator("ol > li").all()[:2]
            expect(first.locator(".mark")).to_have_text("Added from its text, never trained")
            expect(second.locator(".mark")).to_have_count(0)
            playground.check()
