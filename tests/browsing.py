"""A browser on a page that may be drawn anew at any moment."""

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.support.ui import WebDriverWait

# What was found a moment ago may have been replaced: look again.
REDRAWN = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    IndexError,
    NoSuchElementException,
    StaleElementReferenceException,
)


def until(browser, condition):
    """Wait until the condition holds; return what it found."""
    wait = WebDriverWait(browser, 60, poll_frequency=0.02, ignored_exceptions=REDRAWN)
    return wait.until(condition)


def click(browser, by, value, at=0):
    """Find and click in one go what is seen: the `at`-th, from nought."""

    def found_and_clicked(b):
        [e for e in b.find_elements(by, value) if e.is_displayed()][at].click()
        return True

    return until(browser, found_and_clicked)
