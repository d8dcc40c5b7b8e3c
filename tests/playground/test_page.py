"""The playground as a newcomer uses it: a real browser, a real service, the embedded model."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.playground.conftest import Visit
from tests.playground.support import ask, choose, job_ids, pictures, told

LONG = {"Steps": "50", "Pictures": "10"}
SHORT = {"Steps": "1", "Pictures": "1"}
AT_WORK = re.compile(r"step [1-9]\d* of 50")


def test_a_newcomer_presses_one_button_and_sees_the_three_side_by_side(page: Page, http: httpx.Client) -> None:
    page.get_by_label("Pictures").fill("2")
    page.get_by_role("button", name="Compare").click()
    told(page, "Done: 6 pictures")
    columns = [page.get_by_role("region", name=name, exact=True) for name in ("Without", "CFG", "NAG")]
    alts = [[each["alt"] for each in pictures(column)] for column in columns]
    assert alts == [[f"a shape, {name}, seed {seed}" for seed in (9, 10)] for name in ("Without", "CFG", "NAG")]
    assert {each["width"] for each in pictures(page)} == {64}
    without, cfg, nag = (http.get(f"/v1/jobs/{each}").json() for each in job_ids(page))
    assert [job["seed"] for job in (without, cfg, nag)] == [9, 9, 9]
    assert [job["request"]["guidance_scale"] for job in (without, cfg, nag)] == [1, 3, 1]
    assert [job["request"]["negative_prompt"] for job in (without, cfg, nag)] == [None, "a red shape", "a red shape"]
    assert [job["nag"]["applied"] for job in (without, cfg, nag)] == [False, False, True]


def test_what_is_typed_is_what_is_asked_for(page: Page, http: httpx.Client) -> None:
    numbers = {"Seed": "41", "Steps": "3", "Pictures": "1", "scale": "7", "scale_decay": "0.5"}
    ask(page, "Generate", {"Prompt": "a large circle", "Negative prompt": "blue", **numbers})
    told(page, "Done: 1 picture")
    (job_id,) = job_ids(page)
    asked = http.get(f"/v1/jobs/{job_id}").json()["request"]
    assert (asked["prompt"], asked["seed"], asked["num_inference_steps"], asked["n"]) == ("a large circle", 41, 3, 1)
    assert asked["nag"] == {
        "scale": 7,
        "tau": 2.5,
        "alpha": 0.25,
        "end": 1,
        "scale_decay": 0.5,
        "start": 0,
        "method": "nag",
        "negative_prompt": "blue",
    }
    assert [each["alt"] for each in pictures(page)] == ["a large circle, seed 41"]
    page.locator("#results summary").click()
    expect(page.get_by_text("NAG s 7, τ 2.5, α 0.25, θ 1, ↘ 0.5")).to_be_visible()


@pytest.mark.parametrize(
    ("way", "guidance_scale", "applied"), [("CFG", 3, False), ("both", 3, True), ("none", 1, False)]
)
def test_the_negative_prompt_is_obeyed_by_what_is_chosen(
    page: Page, http: httpx.Client, way: str, guidance_scale: float, applied: bool
) -> None:
    choose(page, "Generate")
    choose(page, way)
    ask(page, "Generate", SHORT)
    told(page, "Done: 1 picture")
    (job_id,) = job_ids(page)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["request"]["guidance_scale"], job["nag"]["applied"]) == (guidance_scale, applied)


def test_a_sweep_is_a_strip_of_the_same_seed(page: Page, http: httpx.Client) -> None:
    choose(page, "Sweep")
    page.get_by_label("Number", exact=True).select_option("alpha")
    ask(page, "Sweep", {"From": "0", "To": "0.5", "Values": "3", "Seed": "", **SHORT})
    told(page, "Done: 3 pictures")
    assert page.locator(".cells h3").all_inner_texts() == ["alpha 0", "alpha 0.25", "alpha 0.5"]
    jobs = [http.get(f"/v1/jobs/{each}").json() for each in job_ids(page)]
    assert [job["request"]["nag"]["alpha"] for job in jobs] == [0, 0.25, 0.5]
    assert len({job["seed"] for job in jobs}) == 1


def test_steps_are_shown_as_they_are_done_and_cancel_ends_the_work(page: Page, http: httpx.Client) -> None:
    ask(page, "Generate", LONG)
    expect(page.locator(".progress")).to_have_text(AT_WORK)
    expect(page.get_by_role("img", name="Preview").first).to_be_visible()
    assert 1 <= page.get_by_role("progressbar", name="Progress").evaluate("(bar) => bar.value") < 50
    page.get_by_role("button", name="Cancel").click()
    told(page, "Cancelled")
    expect(page.get_by_text("Cancelled.", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    (job_id,) = job_ids(page)
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_page_loaded_again_in_mid_job_takes_it_up(page: Page, http: httpx.Client) -> None:
    ask(page, "Generate", LONG)
    expect(page.locator(".progress")).to_have_text(AT_WORK)
    (before,) = job_ids(page)
    sent: list[tuple[str, str]] = []
    page.on("request", lambda request: sent.append((request.method, request.url.partition("/v1/")[2])))
    page.reload()
    expect(page.locator(".progress")).to_have_text(AT_WORK)
    assert job_ids(page) == [before]
    assert ("GET", f"jobs/{before}/events") in sent
    assert ("POST", "jobs") not in sent
    page.get_by_role("button", name="Cancel").click()
    told(page, "Cancelled")
    assert http.get(f"/v1/jobs/{before}").json()["status"] == "cancelled"


def test_a_page_left_before_its_request_was_answered_does_not_ask_twice(page: Page) -> None:
    accepted: list[str] = []

    def never_answered(route: Route) -> None:
        accepted.append(route.fetch().json()["id"])

    page.route("**/v1/jobs", never_answered, times=1)
    ask(page, "Generate", SHORT)
    while not accepted:
        page.wait_for_timeout(20)
    page.reload()
    told(page, "Done: 1 picture")
    assert job_ids(page) == accepted


def test_a_broken_stream_of_events_is_taken_up_where_it_broke(page: Page) -> None:
    asked: list[str | None] = []

    def cut(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        whole = route.fetch().text()
        first = whole.index("\n\n") + 2
        body = whole[: first + 20] if len(asked) == 1 else whole
        route.fulfill(body=body, headers={"content-type": "text/event-stream"})

    page.route("**/events", cut)
    page.route("**/v1/jobs/job_*", lambda route: route.abort(), times=1)  # asked in between, the server is away
    ask(page, "Generate", SHORT)
    told(page, "Done: 1 picture")
    assert len(asked) == 2
    assert asked[0] is None
    assert re.fullmatch(r"\d+-\d+", str(asked[1]))


def test_a_video_plays(page: Page) -> None:
    if not page.evaluate("""document.createElement("video").canPlayType('video/mp4; codecs="avc1.64000a"')"""):
        pytest.skip("this browser was built without H.264")
    page.get_by_label("Model").select_option("tiny-wan")
    ask(page, "Generate", {"Prompt": "a shape", "Seed": "3"})
    told(page, "Done: 1 video")
    video = page.locator("video")
    expect(video).to_have_attribute("aria-label", "a shape, seed 3")
    video.evaluate("(video) => new Promise((shown) => video.requestVideoFrameCallback(shown))")
    shown = video.evaluate("(video) => ({width: video.videoWidth, height: video.videoHeight, s: video.duration})")
    assert shown == {"width": 64, "height": 48, "s": pytest.approx(9 / 16, abs=1e-3)}


def test_motion_waits_to_be_asked_for_where_it_is_unwelcome(visit: Visit, service: str) -> None:
    page = visit(service, reduced_motion="reduce")
    ask(page, "Generate", {"Prompt": "a shape"})
    told(page, "Done: 1 video")
    assert page.locator("video").evaluate("(video) => [video.autoplay, video.paused]") == [False, True]


@pytest.mark.parametrize(
    ("mode", "label", "text", "said"),
    [
        ("Generate", "Steps", "999", "must be 1 to 50"),
        ("Generate", "Steps", "2.5", "must be a valid integer"),
        ("Generate", "scale", "0.5", "must be 1 to 100"),
        ("Generate", "Prompt", "x" * 2001, "takes at most 2000 characters"),
        ("Generate", "Pictures", "11", "must be less than or equal to 10"),
        ("Generate", "Seed", "9007199254740993", "Larger than a browser counts exactly"),
        ("Compare", "Negative prompt", "", "Say what is to be kept out"),
        ("Sweep", "Values", "1", "A whole number from 2 to 9"),
    ],
)
def test_a_refusal_stands_at_its_field(page: Page, mode: str, label: str, text: str, said: str) -> None:
    ask(page, mode, {label: text})
    field = page.get_by_label(label, exact=True)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(re.compile(said))
    told(page, said)
    field.fill("3")
    expect(field).to_have_attribute("aria-invalid", "false")
    expect(page.locator("#history li")).to_have_count(0)


def test_a_server_that_is_away_is_said_above_all(page: Page) -> None:
    page.route("**/v1/jobs", lambda route: route.abort())
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")


def test_earlier_runs_are_found_again_shown_and_removed(page: Page) -> None:
    ask(page, "Generate", {"Prompt": "a circle", "Seed": "5", **SHORT})
    told(page, "Done")
    ask(page, "Generate", {"Prompt": "a square", "Seed": "6"})
    expect(page.get_by_role("heading", name="a square")).to_be_visible()
    told(page, "Done")
    page.reload()
    history = page.get_by_role("region", name="History")
    expect(history.get_by_role("listitem")).to_have_count(2)
    history.get_by_role("button", name="a circle, without a red shape generate").click()
    expect(page.get_by_role("heading", name="a circle")).to_be_visible()
    assert [each["alt"] for each in pictures(page.locator("#results"))] == ["a circle, seed 5"]
    assert history.locator("img").first.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a circle")
    history.get_by_role("button", name="Remove a circle, without a red shape").click()
    expect(history.get_by_role("listitem")).to_have_count(1)
    page.reload()
    expect(history.get_by_role("listitem")).to_have_count(1)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear history").click()
    expect(history.get_by_role("listitem")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="Say what you do not want")).to_be_visible()


def test_history_is_bounded(page: Page) -> None:
    page.evaluate(
        """async () => {
          const folder = document.querySelector("script[type=module]").src;
          const store = await import(new URL("store.js", folder).href);
          const model = {id: "x", kind: "image"};
          for (let at = 0; at < 45; at++)
            await store.keep({id: `old-${at}`, at, mode: "generate", form: {prompt: `${at}`}, model, cells: []});
        }"""
    )
    page.reload()
    ask(page, "Generate", SHORT)
    told(page, "Done")
    page.reload()
    expect(page.locator("#history li")).to_have_count(40)


def test_the_keyboard_alone_does_it(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_focused()
    page.get_by_role("radio", name="Compare").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="Generate")).to_be_checked()
    page.get_by_role("slider", name="scale, slider").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("scale", exact=True)).to_have_value("5.5")
    page.get_by_role("button", name="Back to the model’s own values").press("Enter")
    expect(page.get_by_label("scale", exact=True)).to_have_value("")
    expect(page.get_by_role("slider", name="scale, slider")).to_have_value("5")
    for label, text in SHORT.items():
        page.get_by_label(label).fill(text)
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.press("Control+Enter")
    told(page, "Done: 1 picture")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()


def test_nothing_lies_beyond_a_phone_s_edge(visit: Visit, service: str) -> None:
    page = visit(service, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.get_by_label("Model").select_option("shapes-flux")
    page.get_by_role("button", name="As code").tap()
    for mode in ("Compare", "Sweep", "Generate"):
        ask(page, mode, SHORT)
        told(page, "queued")
        told(page, "Done")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, mode
        expect(page.locator("#results .outputs img").first).to_be_in_viewport()


def test_the_policy_is_in_force(visit: Visit, service: str) -> None:
    page = visit(
        service,
        expecting=r"script-src-elem inline|require-trusted-types-for|style-src-attr inline|img-src https://example\.invalid/",
    )
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.append("globalThis.ran = true");
          try { document.head.append(script); } catch {}
          document.body.setAttribute("style", "color: red");
          new Image().src = "https://example.invalid/pixel.png";
        }"""
    )
    assert page.evaluate("globalThis.ran") is None
