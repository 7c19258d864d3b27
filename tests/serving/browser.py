"""A headless Chromium, driven by the WebDriver protocol that its chromedriver speaks."""

import base64
import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx

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
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's own name of a reference
TAB, SPACE, ENTER, CONTROL = "\ue004", " ", "\ue007", "\ue009"


class Browser:
    """One window.

    Args:
        session: the address of the WebDriver session.
    """

    def __init__(self, session):
        self._session = session
        self._client = httpx.Client(timeout=60)

    def close(self):
        self._client.close()

    def _ask(self, path, **body):
        answer = self._client.post(f"{self._session}{path}", json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{answer['error']}: {answer['message']}")
        return answer

    def open(self, url):
        self._ask("/url", url=url)

    def run(self, script, *arguments):
        """What JavaScript returns."""
        return self._ask("/execute/sync", script=script, args=list(arguments))

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def press(self, *keys):
        """Types on whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._ask("/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def press_together(self, *keys):
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._ask("/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def tab_to(self, css, most=80):
        """Presses the tabulator until an element has the focus, as who has no mouse does."""
        for _ in range(most):
            if self.run("return document.activeElement.matches(arguments[0])", css):
                return
            self.press(TAB)
        raise AssertionError(f"{css} is not reached by {most} tabulators")

    def wait(self, script, *arguments, seconds=30):
        """Waits until JavaScript returns something true."""
        end = time.monotonic() + seconds
        while True:
            value = self.run(script, *arguments)
            if value:
                return value
            assert time.monotonic() < end, f"in {seconds} s never true: {script} {arguments}"
            time.sleep(0.1)

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
        entries = self._ask("/se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def _devtools(self, command, **parameters):
        return self._ask("/goog/cdp/execute", cmd=command, params=parameters)


@contextlib.contextmanager
def browsing(profile):
    """A browser with a fresh profile in an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url)
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = httpx.post(
            f"{url}/session", json={"capabilities": {"alwaysMatch": wanted}}, timeout=60
        ).json()["value"]
        assert "sessionId" in answer, answer
        session = f"{url}/session/{answer['sessionId']}"
        try:
            browser = Browser(session)
            yield browser
        finally:
            browser.close()
            httpx.delete(session, timeout=30)
    finally:
        driver.terminate()
        driver.wait(30)


def _wait_until_up(url):
    for _ in range(300):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/status").json()["value"]["ready"]:
                return
        time.sleep(0.1)
    raise AssertionError("chromedriver does not start")
