import re
import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from cookbook import marks, words


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def counts(*texts, **options):
    table = words.top_keywords(texts, n=None, **options)
    return dict(zip(table["keyword"], table["texts"], strict=True))


# --- Comparing


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Crème brûlée", decomposed("CRÈME BRÛLÉE")),
        ("ＳＳＤ", "ssd"),
        ("ﾃﾞｰﾀ", "データ"),
        ("Straße", "STRASSE"),
        ("Großẞ", "grossss"),
        ("İzmir", "izmir"),
        ("eﬃcient", "efficient"),
        ("soft\u00adware", "software"),
        ("it’s", "it's"),
        ("e‑mail", "e-mail"),
        ("❤️", "❤"),
        ("한글", decomposed("한글")),
        ("Java™", "Java"),
    ],
)
def test_forms_that_look_alike_are_equal(one, other):
    assert words.fold(one) == words.fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("दिन", "दीन"), ("resume", "résumé"), ("か", "が"), ("👩‍💻", "👩💻")]
)
def test_accents_and_vowel_signs_tell_words_apart(one, other):
    assert words.fold(one) != words.fold(other)


def test_normalised_texts_keep_emoji_marks_and_the_signs_of_names():
    text = " “Wow” … C# v. C++, .NET 8.0 & foo_bar: it’s 3-1 🤯 #दिन！"
    assert words.normalise(text) == "wow c# v c++ .net 8.0 foo bar its 3-1 🤯 दिन"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Use C++, C# or F#.", ["Use", "C++", "C#", "or", "F#"]),
        (".NET or ASP.NET? (.env)", [".NET", "or", "ASP.NET", ".env"]),
        ("Next.js CI/CD Wi-Fi AT&T", ["Next.js", "CI/CD", "Wi-Fi", "AT&T"]),
        ("I like node.js.", ["I", "like", "node.js"]),
        ("C++11 and 3.14", ["C++11", "and", "3.14"]),
        ("कुल मिलाकर", ["कुल", "मिलाकर"]),
        ("新しいGPU、2台", ["新", "し", "い", "GPU", "2", "台"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("새 GPU를", ["새", "GPU", "를"]),
        ("", []),
    ],
)
def test_words_and_the_pattern_that_vectorizers_take(text, found):
    assert words.tokens(text) == found
    analyse = CountVectorizer(token_pattern=words.WORD, lowercase=False).build_analyzer()
    assert analyse(text) == found


# --- Cells


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("Go, Redis", ["Go", "Redis"]),
        ("Go; Redis;", ["Go", "Redis"]),
        ("Go\nRedis | Zig", ["Go", "Redis", "Zig"]),
        (" go , GO,, go", ["go"]),
        ("Ångström, " + decomposed("Ångström"), ["Ångström"]),
        ("天気，地図；旅行、食", ["天気", "地図", "旅行", "食"]),
        ("شعر، نثر؛ خط", ["شعر", "نثر", "خط"]),
        ("1,2-Dichloroethane, 10,000 Maniacs", ["1,2-Dichloroethane", "10,000 Maniacs"]),
        ('"Crosby, Stills & Nash", Yes', ["Crosby, Stills & Nash", "Yes"]),
        ('12" vinyl, 7" single', ['12" vinyl', '7" single']),
        ('"left open, closed', ['"left open', "closed"]),
        (["Go", "Redis, Inc", None, 7], ["Go", "Redis, Inc"]),
        (("Go", "Redis"), ["Go", "Redis"]),
        (np.array(["Go", "Redis"], dtype=object), ["Go", "Redis"]),
        ([("Go", 0.9), ("Redis", 0.1)], ["Go", "Redis"]),
        ([["Go", 3], ["Redis", 1]], ["Go", "Redis"]),
        ("['Go' 'Redis']", ["Go", "Redis"]),
        ("['Go', \"Redis\"]", ["Go", "Redis"]),
        ("('Go', 'Redis')", ["Go", "Redis"]),
        ("[('Go', 0.9), ('Redis', np.float64(0.1))]", ["Go", "Redis"]),
        ('["Go", null, "Zig", true]', ["Go", "Zig"]),
        ("[not a list", ["[not a list"]),
        ("[broken, list]", ["[broken", "list]"]),
        ("(C) Acme, Go", ["(C) Acme", "Go"]),
        (float("nan"), []),
        (pd.NA, []),
        (None, []),
        ("", []),
        (7, []),
    ],
)
def test_keywords_are_read_however_they_are_written_down(cell, found):
    assert words.split_keywords(cell) == found


def test_repeated_and_empty_keywords_are_kept_on_demand():
    assert words.split_keywords("Go,, go", unique=False) == ["Go", "", "go"]
    assert words.split_keywords(["Go", "", "go"], unique=False) == ["Go", "", "go"]


@pytest.mark.parametrize(
    "keywords",
    [
        ["Go", "C++", "2,4-D"],
        ["Yahoo, Inc", "Go"],
        ["a;b", "c|d", "天，地"],
        ["[1, 2]", "(x)", "{'a': 1}"],
        ["[1", "2]"],
        ['"a', 'b"'],
        ["'a'", "'b'"],
        ['say "hi", you', '"quoted"'],
        ["3", "4"],
        [],
    ],
)
def test_what_is_joined_is_read_back(keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert words.split_keywords(words.join_keywords(keywords)) == keywords


# --- Finding


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("next. js", "Is Next.js 14 out?", "Next.js"),
        ("c + +", "C, C++ and C#", "C++"),
        (". net 8", "on .NET 8!", ".NET 8"),
        ("ci / cd", "our CI/CD", "CI/CD"),
        ("postgresql 16", "PostgreSQL  16", "PostgreSQL 16"),
        ("go", "Google and going", None),
        ("a part", "apart", None),
        ("", "text", None),
        ("medellin", "From Medellín with love", "Medellín"),
        ("sao paulo", "São Paulo's metro", "São Paulo"),
        ("bạn", "bán hàng", None),
        (decomposed("Malmö"), "In Malmö now", "Malmö"),
        ("malmö", decomposed("In Malmö now"), decomposed("Malmö")),
        ("c", "C++ or C#, never C", "C"),
        ("go", "C++ or C#, never Golang", None),
        ("Go", "I go home and write Go", "Go"),
        ("C", "C++/C", "C"),
        ("C++", "C++17 modules", "C++"),
        ("python", "Python+Django", "Python"),
        ("disney+", "On Disney+ now", "Disney+"),
        (". net", "ASP.NET", None),
        ("net", "We use .NET", None),
        (".env", "Edit .env first", ".env"),
        ("@vue/core", "import @vue/core;", "@vue/core"),
        ("node.js", "I use Node.js.", "Node.js"),
        ("straße", "Die STRASSE", "STRASSE"),
        ("istanbul", "İstanbul'da", "İstanbul"),
        ("mcdonald's", "At McDonald’s", "McDonald’s"),
        ("wi-fi", "Wi‑Fi 7", "Wi‑Fi"),
        ("Java", "Java™ 8", "Java"),
        ("software", "free soft\u00adware", "soft\u00adware"),
        ("ssd", "ein ＳＳＤ", "ＳＳＤ"),
        ("서울", "사이 좋은 서울", "서울"),
        ("서울", "서울에서 열린", "서울"),
        ("부산", "반성", None),
        ("gpu", "새 GPU를 샀다", "GPU"),
        ("人工知能", "最近の人工知能とは", "人工知能"),
        ("ssd", "新しいSSDは速い", "SSD"),
        ("เชียงใหม่", "ไปเที่ยวเชียงใหม่กัน", "เชียงใหม่"),
        ("ភ្នំពេញ", "នៅភ្នំពេញថ្ងៃនេះ", "ភ្នំពេញ"),
        ("दिन", "दीन लोग", None),
        ("हिन्दी", "यह हिन्दी है", "हिन्दी"),
        ("का", "काम चालू", None),
        ("שלום", "שָׁלוֹם עולם", "שָׁלוֹם"),
        ("🚀", "to the moon 🚀!", "🚀"),
        ("👩", "I am 👩‍💻", None),
        ("🇫🇷", "in 🇫🇷🇩🇪", "🇫🇷"),
    ],
)
def test_a_keyword_gets_the_spelling_of_its_text(keyword, text, found):
    assert words.restore_case(keyword, text) == found


def test_a_stutter_is_mended_to_what_stands_in_the_text():
    text = "Ubiquiti, Zigbee2MQTT and Home Assistant: my smart home on a Raspberry Pi 5"
    written = ["ubiquititi", "zigbee2mqqtt", "home assistants", "raspberry pi5", "openhab", "kafka"]
    mended = ["Ubiquiti", "Zigbee2MQTT", "Home Assistant", "Raspberry Pi 5"]
    assert words.spelt(written, text) == mended
    assert words.spelt(["ubiquititi", "go"], text, present_only=False) == ["ubiquititi", "go"]
    assert words.spelt(["kafka"], "") == []


@pytest.mark.parametrize(
    ("text", "keywords", "marked"),
    [
        ("C and C++, .NET", ["C", "C++", ".NET"], ["C", "C++", ".NET"]),
        ("Next.js 14 or Next.js?", ["Next.js", "Next.js 14"], ["Next.js 14", "Next.js"]),
        ("Home\n Assistant <3 R&D", ["Home Assistant", "R&D"], ["Home\n Assistant", "R&D"]),
        ("I go; Go flies", ["Go"], ["Go"]),
        ("Gopher", ["Go"], []),
        ("最近の人工知能とGPU", ["gpu", "人工知能"], ["人工知能", "GPU"]),
        ("", ["Go"], []),
    ],
)
def test_whole_keywords_are_marked_the_longest_first(text, keywords, marked):
    pieces = words.mark(text, keywords)
    assert [piece for piece, is_keyword in pieces if is_keyword] == marked
    assert "".join(piece for piece, _ in pieces) == text


# --- Counting


def test_spellings_and_versions_of_one_thing_are_counted_together():
    table = words.top_keywords(
        [["Next.js", "C", "LLM"], ["nextjs 14", "C++", "LLMs"], ["Next.js", "next.js", "C#"], []]
    ).set_index("keyword")
    assert table.loc["Next.js", "texts"] == 3
    assert table.loc["Next.js", "share"] == 0.75
    assert table.loc["Next.js", "spellings"] == ["Next.js", "nextjs"]
    assert table.loc["LLM", "texts"] == 2
    assert {"C", "C++", "C#"} <= set(table.index)
    assert len(words.top_keywords([["C# 13"], ["C#"]])) == 1
    with pytest.raises(ValueError, match="text 0 are one string, not a list"):
        words.top_keywords(["Go, Redis"])


@pytest.mark.parametrize(
    ("keywords", "found"),
    [
        (["GPU", "GPUs", "gpus"], {"GPU": 3}),
        (["SDKs", "sdks"], {"SDKs": 2}),
        (["Windows", "Window", "windows"], {"Windows": 2, "Window": 1}),
        (["css", "CSS", "CS"], {"css": 2, "CS": 1}),
        (["iOS", "ios", "IO"], {"iOS": 2, "IO": 1}),
        (["HTTP", "https", "HTTPS"], {"https": 2, "HTTP": 1}),
        (["Redis", "redis", "Kubernetes"], {"Redis": 2, "Kubernetes": 1}),
        (["Llama-3", "Llama 3", "Llama3"], {"Llama-3": 3}),
        (["Rust 1.80", "Rust"], {"Rust": 2}),
        ([".NET", "net"], {".NET": 1, "net": 1}),
        (["दिन", "दान", "दिन"], {"दिन": 2, "दान": 1}),
        (["🔥", "🔥", "👩‍💻", "👩"], {"🔥": 2, "👩": 1, "👩‍💻": 1}),
        (["Malmö", decomposed("Malmö"), "Malmo"], {"Malmö": 2, "Malmo": 1}),
        (["ＳＳＤ", "SSD"], {"ＳＳＤ": 2}),
        (["Straße", "STRASSE"], {"Straße": 2}),
        (["Wi-Fi", "WiFi", "wi‑fi"], {"Wi-Fi": 3}),
        (
            ["2,4-D", "24-D", "1,000 Genomes", "1000 Genomes"],
            {"1,000 Genomes": 2, "2,4-D": 1, "24-D": 1},
        ),
    ],
)
def test_one_thing_is_one_row_and_two_are_two(keywords, found):
    assert counts(*([keyword] for keyword in keywords)) == found


def test_keywords_with_scores_are_counted_by_their_names():
    assert counts([("Go", 0.9), ("Zig", 0.2)], np.array(["Go"], dtype=object), []) == {
        "Go": 2,
        "Zig": 1,
    }


def test_versions_are_counted_apart_on_demand():
    found = counts(["Go 1.2"], ["Go 1.2"], ["Go 12"], ["Vue 2"], ["Vue"], versions=True)
    assert found == {"Go 1.2": 2, "Go 12": 1, "Vue": 1, "Vue 2": 1}
    assert counts(["Qwen 2"], ["Qwen-2"], ["Qwen2"], versions=True) == {"Qwen 2": 3}


def test_a_keyword_stands_wherever_it_is_and_the_longest_wins():
    text = "React Native beats React; React Native!"
    found = words.spans(text, ["React", "React Native"])
    assert [text[start:stop] for start, stop in found] == ["React Native", "React", "React Native"]
    # In its own spelling where the text has it: the verb is no language.
    assert words.spans("Go where you go", ["Go"]) == [(0, 2)]
    # The longest first, though another one begins before it.
    assert words.spans("big data lake house", ["big data", "data lake house"]) == [(4, 19)]


MARKED = "Next.js and C++ (or Go), not Next.js"
TOKENS = np.array([[m.start(), m.end()] for m in re.finditer(r"\w+|[^\w\s]", MARKED)])


def read_tokens(text, tokens, probable, threshold=0.5):
    pieces = marks.of_pieces(text, np.array(tokens), np.array(probable))
    return marks.read_marks(text, pieces, threshold)


def read(threshold=0.5, **likely):
    """Read the marks of tokens that are named; the others are outside."""
    said = {"+": (0, 0.9), ".": (0, 0.9), "(": (0, 0.9), ")": (0, 0.9), **likely}
    probable = [said.get(MARKED[start:stop], (0.1, 0)) for start, stop in TOKENS]
    return read_tokens(MARKED, TOKENS, probable, threshold)


def test_marks_are_read_in_the_spelling_of_the_text_each_keyword_once():
    found = dict(read(Next=(0.9, 0), js=(0, 0.7), C=(0.6, 0), Go=(0.8, 0)))
    # What a dot joins is one, and so is what signs end, as in C++.
    assert found == pytest.approx({"Next.js": 0.8333333, "C++": 0.8, "Go": 0.8})


def test_a_lower_threshold_finds_more():
    assert [name for name, _ in read(Go=(0.4, 0), C=(0.9, 0))] == ["C++"]
    dot = {".": (0.1, 0)}
    assert [name for name, _ in read(0.3, Go=(0.4, 0), C=(0.9, 0), **dot)] == ["C++", "Go"]
    assert read_tokens("", np.zeros((0, 2)), np.zeros((0, 2))) == []


def test_two_keywords_side_by_side_stay_two():
    text, tokens = "Kafka Redis", [[0, 5], [6, 11]]
    assert read_tokens(text, tokens, [[0.9, 0], [0.8, 0.1]]) == [
        ("Kafka", pytest.approx(0.9)),
        ("Redis", pytest.approx(0.9)),
    ]
    assert read_tokens(text, tokens, [[0.9, 0], [0.1, 0.8]])[0][0] == "Kafka Redis"


def test_what_rises_is_told_from_three_posts():
    before = [["Go"]] * 200 + [["AI"]] * 10
    now = [["AI"]] * 60 + [["Go"]] * 40 + [["Zig"]] * 3
    dates = ["2024-01-02"] * len(before) + ["2024-01-09"] * len(now)
    table = words.top_keywords(before + now, dates=dates).set_index("keyword")
    assert table.loc["AI", "low"] > 0 > table.loc["Go", "high"]
    assert table.loc["Zig", "low"] < 0 < table.loc["Zig", "high"]
    week = pd.Period("2024-01-09", "W")
    assert table.loc["AI", week] == pytest.approx(60 / 103)
    assert table.loc["AI", "change"] == pytest.approx(60 / 103 - 10 / 210)


def test_the_interval_of_a_change_is_newcombe_s():
    # His example: 56 of 70 against 48 of 80 gives 0.0524 to 0.3339 (1998, table II, method 10).
    keywords = [["x"]] * 48 + [["y"]] * 32 + [["x"]] * 56 + [["y"]] * 14
    dates = ["2023-05-01"] * 80 + ["2024-05-01"] * 70
    row = words.top_keywords(keywords, n=1, dates=dates, by="year").iloc[0]
    assert (row["low"], row["high"]) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


def test_texts_without_a_date_are_counted_and_one_week_is_refused():
    with pytest.warns(UserWarning, match="1 of 3 texts have no date, and count in no month"):
        words.top_keywords([["Go"]] * 3, dates=["2024-01-01", None, "2024-02-01"], by="month")
    with pytest.raises(ValueError, match=r"Length of values .2. does not match"):
        words.top_keywords([["Go"]] * 3, dates=["2024-01-01", "2024-02-01"])
    assert words.top_keywords([[], []], dates=["2024-01-01", "2024-02-01"]).empty
    with pytest.raises(ValueError, match="All texts are of one week"):
        words.top_keywords([["Go"]] * 2, dates=["2024-01-01", "2024-01-02"])
