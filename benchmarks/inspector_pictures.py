"""The pictures of docs/inspector.md, taken from a running server.

    latentplan serve runs/quickstart/atp_latent_sft runs/quickstart/atp_latent_rl runs/quickstart/cot
    python benchmarks/inspector_pictures.py docs/images

Needs the extra `test` and an installed Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

QUESTION = "the needle shows 8 . first add 1 . second minus 1 . third triple it . fourth add 3 . answer ?"
FROM_7 = "the needle shows 7 . first add 1 . second minus 1 . third triple it . fourth add 3 . answer ?"
ADD_2 = "the needle shows 8 . first add 1 . second minus 1 . third triple it . fourth add 2 . answer ?"


def ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.click("button.main")
    page.wait_for_selector("#thought-columns .column:last-child .scores:not(:empty)")
    page.wait_for_selector("#status:empty", state="attached")


def sample(page: Page, count: int) -> None:
    page.fill("#count", str(count))
    page.click("#sample button")
    page.wait_for_selector("#samples-columns .plan")
    page.wait_for_selector("#status:empty", state="attached")


def change(page: Page) -> None:
    """Every single edit; the first step of a question that starts at 7; all steps of one that ends with 2."""
    page.click("button[value=all]")
    page.locator(".every").last.wait_for()
    for other, action, think_on, rows in ((FROM_7, "splice", True, 4), (ADD_2, "splice-all", False, 6)):
        page.fill("#other", other)
        page.set_checked("#think-on", think_on)
        page.click(f"button[value={action}]")
        page.locator(".column:last-child .outcomes tr").nth(rows - 1).wait_for()
        page.wait_for_selector("#status:empty", state="attached")


def save(page: Page, file: Path, first: str, last: str) -> None:
    """What lies between the top of one element and the bottom of another, in 256 colours."""
    page.evaluate("scrollTo(0, 0)")
    top, end = (page.locator(each).bounding_box() for each in (first, last))
    image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    image = image.crop((0, max(0, int(top["y"]) - 18), image.width, int(end["y"] + end["height"]) + 18))
    image.quantize(256, kmeans=2).save(file, optimize=True)
    print(file, image.size, f"{file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    asked = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 800}, color_scheme="light")
        page.goto(asked.url)
        page.wait_for_selector("input[name=model]", state="attached")
        ask(page, QUESTION)
        save(page, asked.folder / "inspector-steps.png", "header", "#thought-columns")
        sample(page, 32)
        change(page)
        save(page, asked.folder / "inspector-edits.png", "#samples", "#whatif-columns")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(asked.url)
        phone.wait_for_selector("input[name=model]", state="attached")
        ask(phone, QUESTION)
        save(phone, asked.folder / "inspector-phone.png", "header", "#thought-columns .column:first-child")
        browser.close()


if __name__ == "__main__":
    main()
