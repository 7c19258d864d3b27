"""A headless Chromium, driven by Selenium."""

import base64
import contextlib
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TAB, SPACE, ENTER, CONTROL = Keys.TAB, " ", Keys.ENTER, Keys.CONTROL


class Browser:
    """One window.

    Args:
        driver: Selenium's.
    """

    def __init__(self, driver):
        self._driver = driver

    def open(self, url):
        self._driver.get(url)

    def run(self, script, *arguments):
        """What JavaScript returns."""
        return self._driver.execute_script(script, *arguments)

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def press(self, *keys):
        """Types on whatever has the focus."""
        actions = ActionChains(self._driver, duration=0)
        for key in keys:
            actions.key_down(key).key_up(key)
        actions.perform()

    def press_together(self, *keys):
        actions = ActionChains(self._driver, duration=0)
        for key in keys:
            actions.key_down(key)
        for key in reversed(keys):
            actions.key_up(key)
        actions.perform()

    def tab_to(self, css, most=80):
        """Presses the tabulator until an element has the focus, as who has no mouse does."""
        for _ in range(most):
            if self.run("return document.activeElement.matches(arguments[0])", css):
                return
            self.press(TAB)
        raise AssertionError(f"{css} is not reached by {most} tabulators")

    def wait(self, script, *arguments, seconds=30):
        """Waits until JavaScript returns something true."""
        message = f"in {seconds} s never true: {script} {arguments}"
        waiting = WebDriverWait(self._driver, seconds, poll_frequency=0.1)
        return waiting.until(lambda _: self.run(script, *arguments), message)

    def size(self, width, height):
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features):
        """What the user prefers, such as prefers_color_scheme="dark"."""
        given = [{"name": n.replace("_", "-"), "value": value} for n, value in features.items()]
        self._devtools("Emulation.setEmulatedMedia", features=given)

    def screenshot(self, path):
        shot = self._devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def logged(self):
        """The errors in the console."""
        entries = self._driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def _devtools(self, command, **parameters):
        return self._driver.execute_cdp_cmd(command, parameters)


@contextlib.contextmanager
def browsing(profile):
    """A browser with a fresh profile in an empty folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
