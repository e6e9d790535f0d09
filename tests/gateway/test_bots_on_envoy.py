"""Bot detection: on paper, and a real Envoy held against it on generated user agents."""

import http.client

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.door import Door
from skylift.gateway.bots import ANYWHERE, KNOWN, WITH_VERSION
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.read import read_documents
from skylift.gateway.request import make
from skylift.gateway.text import compile_regex

PEOPLE = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605",
    "Mozilla/5.0 (Linux; Android 14; CUBOT X70) AppleWebKit/537.36 (KHTML, like Gecko) Mobile Safari/537.36",
    "curl/8.14.1",
    "Wget/1.25.0",
    "python-requests/2.32.4",
    "skylift-agent/1.0",
    "Go-http-client/2.0",
)
BOTS = (
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; YandexImages/3.0; +http://yandex.com/bots)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Scrapy/2.13.3 (+https://scrapy.org)",
    "Apache-HttpClient/4.5.14 (Java/17)",
    "ia_archiver (+http://www.alexa.com/site/help/webmasters)",
    "My-Crawler 3",
    "a web SPIDER",
    "NING/1.0",
)


@pytest.mark.parametrize("agent", PEOPLE)
def test_a_browser_or_a_tool_is_no_bot(agent: str) -> None:
    assert compile_regex(KNOWN).search(agent) is None


@pytest.mark.parametrize("agent", BOTS)
def test_a_bot_is_one_by_its_own_word(agent: str) -> None:
    assert compile_regex(KNOWN).search(agent)


def test_an_expression_that_re2_cannot_run_is_refused_with_its_place() -> None:
    text = "plugins: [{name: bot-detection, config: {allow: ['(?=a)b']}}]"
    with pytest.raises(Refused, match=r"plugins\[0\].config.allow\[0\].*look-around"):
        read_documents(loads(text, "kong.yaml"))


LISTS = (
    "{}",
    "{allow: ['^Scrapy', 'bing(bot)?/2']}",
    "{deny: [curl, '(?i)^mozilla.*windows']}",
    "{allow: [Android], deny: ['.', '^$']}",
    "{whitelist: ['a$'], blacklist: ['\\d{3}']}",
)
CONFIG = (
    "services:\n"
    "  - name: s\n"
    "    url: http://127.0.0.1:9\n"
    "    plugins: [{name: request-termination, config: {status_code: 200, message: in}}]\n"
    "    routes:\n"
) + "".join(
    f"      - {{name: r{n}, paths: [/{n}], plugins: [{{name: bot-detection, config: {config}}}]}}\n"
    for n, config in enumerate(LISTS)
)
WORDS = st.sampled_from(
    (
        *PEOPLE,
        *BOTS,
        *ANYWHERE,
        *WITH_VERSION,
        "bot",
        "Bot",
        "CuBot",
        "/1",
        " 2",
        "a",
        "Yeti",
        "Zao",
        ", ",
        "x",
    )
)
AGENTS = st.lists(WORDS, min_size=1, max_size=4).map(lambda words: "".join(words).strip(" ,") or "x")


@pytest.fixture(scope="module")
def guarded(door: Door) -> Door:
    door.open(CONFIG, name="kong.yaml")
    return door


@settings(
    max_examples=60,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(agent=AGENTS | st.none())
def test_envoy_refuses_the_bots_that_the_reference_refuses(guarded: Door, agent: str | None) -> None:
    headers = {} if agent is None else {"User-Agent": agent}
    for number in range(len(LISTS)):
        wanted = decide(guarded.gateway, make("GET", f"/{number}", tuple(headers.items()))).reply
        assert wanted is not None
        found = guarded.ask(f"/{number}", **headers)
        assert (found.status, "Forbidden" in found.body) == (wanted.status, wanted.status == 403), agent


def test_two_user_agents_are_looked_at_as_one_text(guarded: Door) -> None:
    twice = (("User-Agent", "curl/8"), ("User-Agent", "Scrapy/2"))
    wanted = decide(guarded.gateway, make("GET", "/0", twice)).reply
    line = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=20)
    line.putrequest("GET", "/0")
    for name, value in twice:
        line.putheader(name, value)
    line.endheaders()
    found = line.getresponse().status
    line.close()
    assert wanted is not None
    assert (wanted.status, found) == (403, 403)
