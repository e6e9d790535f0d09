"""Which programs are bots by their own word: what `User-Agent` says of the crawlers, monitors and libraries
that Kong's bot-detection knows. Names are compared with case, anywhere in the text; a browser, curl or a name
that nobody knows is none of them.
"""

GENERAL = (
    r"(?i:spider|crawl)|[Ss]crape",
    r"[^C][^Uu][Bb]ot",  # a CUBOT is a telephone
    r"(?:[Aa]rchiver|[Ii]ndexer|[Bb]ot)[/ ][0-9]",
    r"/(?:[A-Za-z]+[Bb]ot|Axtaris|fetchurl|Isara|ShopSalad|Tailsweep)[ -][0-9]",
    r"Google.*/\+/web/snippet",
    r"MSIE [0-9].*; ?MSIECrawler",
    r"\bYeti\b|\bjbot\b|favicon",
)
# Only with a version behind: each is a word that may mean something else.
WITH_VERSION = (
    *("008", "Altresium", "Argus", "BaiduMobaider", "BoardReader", "DNSGroup", "DataparkSearch", "EDI"),
    *("Goodzer", "Grub", "INGRID", "Infohelfer", "LOOQ", "Nutch", "PathDefender", "Peew", "PostPost"),
    *("Steeler", "VSE", "WebCrunch", "WebZIP", "YahooSeeker", "envolk", "facebookexternalhit", "sproose"),
    *("wminer",),
)
ANYWHERE = (
    # programs' libraries
    *("Apache-HttpClient", "Google-HTTP-Java-Client", "HttpMonitor", "JNLP", "Python-urllib", "TLSProber"),
    *("WinHTTP", "http%20client"),
    # search engines, feeds, archives, previews, monitors
    *("1470.net crawler", "50.nu", "Aboundex", "AppEngine-Google", "Ask Jeeves", "BingPreview", "BlogBridge"),
    *("BoardReader", "BotSeer", "Checklinks", "Daumoa", "Flamingo_SearchEngine", "Genieo", "GomezAgent"),
    *("Google SketchUp", "HiddenMarket", "HooWWWer", "ICC-Crawler", "IconSurf", "Icarus6j", "IlTrovatore"),
    *(
        "InfuzApp",
        "InternetArchive",
        "Kraken",
        "Kurzor",
        "LEIA",
        "LinkAider",
        "Llaut",
        "Mediapartners-Google",
    ),
    *("NewsGator", "Netvibes", "Nutch", "Nymesis", "OOZBOT", "ObjectsSearch", "Orbiter", "PagePeeker"),
    *("PagesInventory", "PaxleFramework", "Pompos", "Read%20Later", "Reaper", "RedCarpet", "Retreiver"),
    *("Riddler", "Rival IQ", "SEOstats", "Scrapy", "Scrubby", "SimplePie", "SimpleRSS", "Simpy", "SiteCon"),
    *("Slurp", "Squrl Java", "Thumbshots.ru", "URL2PNG", "Vagabondo", "WIRE", "Web-sniffer", "WebThumb"),
    *("WhatWeb", "WordPress", "Wotbox", "YottaaMonitor", "Yowedo", "ZooShot", "ZyBorg", "altavista"),
    *("archiver", "boitho.com-dc", "clumboot", "findlinks", "gonzo1", "grub-client", "heritrix", "holmes"),
    *("htdig", "ia_archiver", "ichiro", "larbin", "lycos", "mogimogi", "mozDex", "netresearch", "scooter"),
    *("searchsight", "semanticdiscovery", "snappy", "www.almaden.ibm.com", "yacy"),
    *("bingbot", "blitzbot", "furlbot", "gigabot", "msnbot", "msrbot", "seekbot"),  # where they come first
    *("AdsBot-Google", "Googlebot", "LesnikBot", "LinkedInBot", "MJ12bot", "TwitterBot", "Twitterbot"),
)
AT_THE_START = ("NING", "Zao", "vortex", "voyager")
PATTERNS = (
    r"Accoona-[A-Za-z]+-Agent",
    r"[Cc]harlotte",
    r"WeSEE:[A-Za-z]",
    r"Xenu.{0,2} Link Sleuth",
    r"Y!J-BR[A-Z]/[0-9]",
    r"Yahoo[a-z]*Seeker",
    r"Yandex\w",
)


def _plain(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in " -_%" else f"\\{sign}" for sign in name)


def _any(names: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(_plain(name) for name in names)})"


# One expression for all, in RE2's words and in Python's.
KNOWN = "|".join(
    (*GENERAL, *PATTERNS, f"{_any(WITH_VERSION)}/[0-9]", _any(ANYWHERE), f"^{_any(AT_THE_START)}")
)
