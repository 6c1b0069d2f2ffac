"""The dashboard's page without a browser, and what stands on it."""

import html
import re


def script(folder):
    from fccl.apps.dashboard_script import page

    page(["--log-dir", f"{folder}/logs", "--exchange-dir", f"{folder}/exchange"])


def shown(page, tab=None):
    """The page after a run of its script, on a tab; nothing went wrong."""
    if tab is not None:
        page.session_state["tab"] = tab
    page.run()
    assert not page.exception
    assert not page.warning, [each.value for each in page.warning]
    return page


def texts(page):
    """Everything that is HTML, as a person reads it."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", each.proto.body)) for each in page.get("html"))


def sentence(page):
    (said,) = re.findall(
        r'<h1 class="fccl-sentence">(.*?)</h1>', " ".join(each.proto.body for each in page.get("html"))
    )
    return html.unescape(said)


def figures(page):
    return {each.label: (each.value, each.delta) for each in page.metric}


def table(page, *columns):
    """The table that has these columns."""
    (found,) = [each.value for each in page.dataframe if set(columns) <= set(each.value.columns)]
    return found


def charts(page):
    return len(page.get("vega_lite_chart"))
