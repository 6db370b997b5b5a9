import unicodedata

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict, concatenate_datasets

from cookbook import data, quality, tables, words


@pytest.fixture(scope="module")
def frame(titles):
    return titles[["text", "label", "pair"]]


def kinds(report):
    return set(report.to_frame()["check"])


def test_nothing_is_wrong_with_the_shipped_titles(frame):
    report = quality.check(data.load_splits(frame, group="pair"))
    assert report.ok, report.problems
    assert report.to_frame().empty
    assert report.rows == 3581
    assert "No problem found." in str(report)


def test_the_additional_titles_are_clean_together_with_the_rest(frame):
    more = tables.read(data.shipped("clickbait_titles_more.csv"))
    report = quality.check(pd.concat([frame, more], ignore_index=True))
    assert report.ok, report.problems


def spoil(frame, label, share, change):
    rows = frame.index[frame["label"] == label]
    rows = np.random.default_rng(0).choice(rows, int(share * len(rows)), replace=False)
    spoilt = frame.copy()
    spoilt.loc[rows, "text"] = spoilt.loc[rows, "text"].map(change)
    return spoilt


@pytest.mark.parametrize(
    ("feature", "share", "change"),
    [
        ("has '!'", 0.65, lambda text: text + "!"),
        ("has '?'", 0.65, lambda text: text + "?"),
        ("starts with a digit", 0.65, lambda text: "7 " + text),
        ("has a digit", 0.65, lambda text: text + " 7 times"),
        ("share of capitalised words", 1.0, str.title),
        ("share of capitals", 0.8, str.upper),
        ("characters", 0.8, lambda text: text + " and what happened a long time after that"),
        ("first two words", 0.65, lambda text: "Guess what " + text),
        ("the word 'unbelievable'", 0.65, lambda text: "An unbelievable thing " + text),
        ("has a colon", 0.65, lambda text: "Watch: " + text),
        ("has a quotation mark", 0.65, lambda text: f'"{text}"'),
    ],
)
def test_every_giveaway_is_caught(frame, feature, share, change):
    report = quality.check(spoil(frame, "clickbait", share, change))
    flagged = report.giveaways[report.giveaways["flagged"]]
    assert feature in flagged["feature"].tolist()
    assert flagged.loc[flagged["feature"] == feature, "label"].tolist() == ["clickbait"]
    assert any(feature in problem for problem in report.problems)


def test_a_giveaway_of_the_other_label_is_its_own(frame):
    report = quality.check(spoil(frame, "factual", 0.65, lambda text: text + "!"))
    assert report.giveaways.iloc[0][["feature", "label"]].tolist() == ["has '!'", "factual"]


def test_a_giveaway_of_a_rare_label_is_seen(frame):
    rare = frame.iloc[:30].assign(label="rare", text=lambda rows: rows["text"] + "!")
    report = quality.check(pd.concat([frame.iloc[30:], rare]))
    flagged = report.giveaways[report.giveaways["flagged"]]
    assert ("has '!'", "rare") in list(zip(flagged["feature"], flagged["label"], strict=True))


def test_a_label_whose_texts_have_no_word_is_checked_too():
    marks = pd.DataFrame({"text": ["!!!", "😀", "a b", "c d"], "label": list("xxyy")})
    assert set(quality.check(marks).giveaways["label"]) == {"x", "y"}
    assert len(quality.surface_giveaways(marks["text"].head(2), pd.Series(["x", "y"])))


def test_texts_without_any_label_are_counted_too():
    rows = pd.DataFrame({"text": ["One", "Two", "Three"], "label": "[]"})
    assert "balance: none" in quality.check(rows, several=True).problems
    splits = {"train": rows.assign(label=["a", "b|a", "a"]), "test": rows.assign(text="Four")}
    report = quality.check(splits, several=True)
    assert report.balance.loc["test"].tolist() == [0, 0]
    assert "a 3, b 1" in str(report)


def test_splits_named_by_their_files_are_cleaned_too(tmp_path):
    rows = pd.DataFrame({"text": ["One", "ONE", "Two"], "label": ["a", "a", "b"]})
    rows.to_csv(tmp_path / "train.csv", index=False)
    clean = quality.check({"train": tmp_path / "train.csv"}).clean()
    assert clean["train"]["text"].tolist() == ["One", "Two"]


def test_random_labels_give_nothing_away(frame):
    shuffled = frame["label"].sample(frac=1, random_state=0).to_numpy()
    table = quality.surface_giveaways(frame["text"], pd.Series(shuffled))
    assert table["score"].max() < 0.55


def test_copies_are_found_and_cleaned_away(frame):
    copies = frame.iloc[[5, 6]].assign(text=lambda rows: rows["text"].str.upper() + " !")
    near = frame.iloc[[9]].assign(text=lambda rows: "The " + rows["text"])
    spoilt = pd.concat([frame, copies, near], ignore_index=True)
    report = quality.check(spoilt)
    found = report.duplicates.set_index("row")
    assert found["of_row"].to_dict() == {3581: 5, 3582: 6, 3583: 9}
    assert found["kind"].tolist() == ["exact", "exact", "near"]
    assert kinds(report) == {"exact duplicate", "near duplicate"}
    assert report.clean().equals(spoilt.iloc[:3581])
    assert quality.check(report.clean()).ok


def test_the_first_of_each_group_stays():
    rows = pd.DataFrame({"text": ["Old bridge to close"] * 3 + ["Tea"], "label": list("aaab")})
    assert quality.check(rows).clean().index.tolist() == [0, 3]


def test_a_leak_between_splits_is_called_one_and_train_keeps_the_row(frame):
    splits = data.load_splits(frame, group="pair")
    leaked = splits["train"][7]
    splits["test"] = splits["test"].add_item(leaked)
    report = quality.check(splits)
    assert kinds(report) == {"leak"}
    assert report.problems[0].startswith("leak: 1 rows, such as test 358")
    cleaned = report.clean()
    assert len(cleaned["test"]) == len(splits["test"]) - 1
    assert len(cleaned["train"]) == len(splits["train"])
    assert quality.check(cleaned).ok


def test_a_text_with_two_labels_is_found_and_both_rows_go(frame):
    twin = frame.iloc[[3]].assign(
        label=lambda rows: np.where(rows["label"] == "factual", "clickbait", "factual")
    )
    report = quality.check(pd.concat([frame, twin], ignore_index=True))
    assert "two labels" in kinds(report)
    assert report.conflicts["row"].tolist() == [3, 3581]
    assert len(report.clean()) == 3580


def test_imbalance_and_a_single_label_are_problems(frame):
    few = pd.concat([frame[frame["label"] == "factual"], frame[frame["label"] != "factual"][:20]])
    assert any("only 20 of 'clickbait'" in problem for problem in quality.check(few).problems)
    one = quality.check(frame[frame["label"] == "factual"])
    assert any("only one label" in problem for problem in one.problems)


def test_titles_that_differ_in_a_number_are_different_unless_told_otherwise():
    texts = pd.Series(["Harrow United win the derby 3-1", "Harrow United win the derby 2-0"])
    assert quality.near_duplicates(texts).empty
    assert len(quality.near_duplicates(texts, ignore_numbers=True)) == 1


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(frame):
    from rapidfuzz import fuzz

    texts = frame["text"][~frame["text"].str.contains(r"\d")].iloc[:400]
    keys = [words.normalise(text) for text in texts]
    alike = {
        (i, j)
        for j in range(400)
        for i in range(j)
        if fuzz.ratio(keys[i], keys[j]) >= 60 and fuzz.token_sort_ratio(keys[i], keys[j]) >= 60
    }
    found = set(quality.near_duplicates(texts, similarity=60)["row"])
    assert len(alike) > 3
    assert {j for _, j in alike} <= found <= {row for pair in alike for row in pair}


def test_among_many_texts_minhash_finds_what_a_comparison_of_all_pairs_finds(frame):
    rng = np.random.default_rng(0)

    def edited(text):
        parts = text.split()
        place = rng.integers(len(parts))
        kind = rng.integers(4)
        if kind == 0:
            parts[place] = "news"
        elif kind == 1:
            parts.insert(place, "the")
        elif kind == 2:
            parts[place] = parts[place][::-1]
        else:
            parts = [*parts[1:], parts[0]]
        return " ".join(parts)

    kept = frame["text"].head(2000)
    texts = pd.concat([kept, kept.map(edited), kept.head(200).str.upper()])
    texts = texts.sample(frac=1, random_state=0, ignore_index=True)
    every = quality.near_duplicates(texts, exact_up_to=len(texts))
    found = quality.near_duplicates(texts, exact_up_to=0)
    assert (every.attrs["way"], found.attrs["way"]) == ("every pair", "MinHash")
    assert len(every) > 1000
    assert set(found["row"]) <= set(every["row"])
    same = every.merge(found, on=["row", "of"])
    assert len(same) >= 0.99 * len(every)
    assert same["similarity_x"].tolist() == pytest.approx(same["similarity_y"])
    assert quality.near_duplicates(texts.head(50), 80, exact_up_to=0).attrs["way"] == "every pair"


def test_of_a_crowd_of_letters_from_one_template_each_is_a_duplicate_either_way():
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefghijklmnop"), 5)) for _ in range(300)]
    letter = "Dear {}, thank you for your order, which will be with you within the next week"
    texts = pd.Series([*map(letter.format, names), "Something else"])
    for exact_up_to in (1000, 0):
        found = quality.near_duplicates(texts, exact_up_to=exact_up_to)
        assert found["row"].tolist() == list(range(1, 300))
        assert set(found["of"]) == {0}


def test_in_a_crowd_the_few_that_are_alike_are_found(frame):
    """Letters from one template share a band, as do the few that are near copies."""
    rng = np.random.default_rng(1)
    known = sorted({word for text in frame["text"] for word in text.split() if word.isalpha()})
    own = [" ".join(rng.choice(known, 6)) for _ in range(600)]
    letter = "Thank you for your order of {}, which we will send as soon as we can and hope well"
    letters = list(map(letter.format, own))
    copies = [letter.format(f"{words[:5]}xyzq{words[9:]}") for words in own[:200]]
    texts = pd.Series(letters + copies).sample(frac=1, random_state=0, ignore_index=True)
    every, found = (quality.near_duplicates(texts, exact_up_to=most) for most in (1000, 0))
    assert len(every) > 150
    assert set(found["row"]) == set(every["row"])


def test_of_more_than_a_crowd_the_first_text_of_the_group_is_still_named():
    rng = np.random.default_rng(0)

    def word(letters=7):
        return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), letters))

    head, middle = (" ".join(word() for _ in range(6)) for _ in range(2))
    one, two = word(8), word(8)
    shorter = [f"{head} {word()} {middle} {two}" for _ in range(100)]
    texts = pd.Series(
        [f"{head} {one} {middle} {word(9)}", *shorter, f"{head} {one} {middle} {two}"]
    )
    found = quality.near_duplicates(texts).set_index("row")
    assert found.loc[101, "of"] == 0


def test_the_report_says_that_so_many_texts_were_compared_by_minhash():
    texts = [f"{a} {b} {c}" for a in "abcdefghij" for b in range(40) for c in range(52)]
    many = pd.DataFrame({"text": [*texts, texts[0].upper()], "keywords": "a"})
    report = quality.check_keywords(many)
    assert "compared by MinHash" in str(report)
    assert report.duplicates["of_row"].tolist() == [0]
    assert "MinHash" not in str(quality.check_keywords(many.head(100)))


def test_rows_that_are_no_text_are_named():
    with pytest.raises(ValueError, match="Row 1 of 'all' is no text"):
        quality.check(pd.DataFrame({"text": ["a", 7], "label": ["x", "y"]}))
    with pytest.raises(ValueError, match="no column 'label'"):
        quality.check(pd.DataFrame({"text": ["a"]}))
    with pytest.raises(ValueError, match="Row 1 of 'all' is without a label"):
        quality.check(pd.DataFrame({"text": ["a", "b"], "label": ["x", None]}))


def test_tiny_and_odd_texts_do_not_break_the_report():
    texts = ["", "", "🤯🤯", "😀", "日本語", "का", "की", "दिन", "दान", "x" * 10_000]
    report = quality.check(pd.DataFrame({"text": texts, "label": list("ababababab")}))
    assert report.ok, report.problems
    assert len(report.clean()) == len(texts)


@pytest.mark.parametrize("sign", ["！", "？", "。", "「」", "：", "７"])
def test_full_width_signs_give_a_label_away(sign):
    signs = list("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜")
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(signs, 12, replace=False)) for _ in range(120)]
    marked = [text + sign if i < 60 else text for i, text in enumerate(texts)]
    report = quality.check(pd.DataFrame({"text": marked, "label": ["bait"] * 60 + ["fact"] * 60}))
    assert any("giveaway" in problem and "'bait'" in problem for problem in report.problems)


def test_copies_in_another_form_of_unicode_leak():
    texts = ["Đội tuyển thắng trận đầu tiên", "Ｃａｆé Straße", "ﬁnal für Anfänger", "한국 여행"]
    parts = {
        form: Dataset.from_dict(
            {"text": [unicodedata.normalize(form, text) for text in texts], "label": list("abab")}
        )
        for form in ("NFC", "NFKD")
    }
    report = quality.check(DatasetDict(train=parts["NFC"], test=parts["NFKD"]))
    assert report.duplicates["leaks"].sum() == 4
    assert set(report.duplicates["kind"]) == {"exact"}
    assert len(report.clean()["train"]) == 4
    assert len(report.clean()["test"]) == 0


def test_labels_that_differ_in_case_or_join_others_are_problems(titles):
    rows = titles.groupby("label").head(40).reset_index(drop=True)
    rows.loc[:9, "label"] = rows.loc[:9, "label"].str.upper()
    told = [problem for problem in quality.check(rows).problems if problem.startswith("labels:")]
    assert told
    assert all("differ in case" in problem for problem in told)
    rows["label"] = ["a", "b", "a|b", "b"] * 20
    assert any("join" in problem for problem in quality.check(rows).problems)


def test_files_are_read_and_doubled_columns_are_named(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_text("text,label,label\nRain,a,b\n")
    with pytest.raises(ValueError, match="more than one column called 'label'"):
        quality.check(str(path))
    path.write_text("text,label\nRain,a\nrain!,a\nSun,b\n")
    report = quality.check(str(path))
    assert report.duplicates["row"].tolist() == [1]
    assert report.clean()["text"].tolist() == ["Rain", "Sun"]


def test_who_beats_whom_matters():
    assert quality.near_duplicates(pd.Series(["United beat City", "City beat United"])).empty


@pytest.fixture(scope="module")
def posts():
    return tables.read(data.shipped("tech_keywords.csv"))


def checked(**columns):
    return quality.check_keywords(pd.DataFrame(columns))


def test_little_is_wrong_with_the_shipped_keywords(posts):
    report = quality.check_keywords(data.load_splits(posts, label=None, keywords="keywords"))
    # One row names only what a reader infers; it is worth a look, and reported as such.
    assert report.findings["check"].tolist() == ["far from the text"]
    assert report.findings["text"].tolist() == ["Why the Dreamcast still gets new games in 2024"]
    assert report.rows == 3689
    assert report.per_text == pytest.approx(4.7, abs=0.1)
    assert report.literal == pytest.approx(0.89, abs=0.02)
    assert sum(map(len, report.clean().values())) == 3688


@pytest.mark.parametrize(
    ("cell", "check", "detail"),
    [
        (None, "no keywords", ""),
        ("Go,, Redis", "empty keyword", "'Go,, Redis'"),
        ("Go, Redis, GO", "repeated keyword", "go"),
        ("Go, Tool", "generic keyword", "Tool"),
        ("Photosynthesis, Quilting", "far from the text", "Photosynthesis, Quilting"),
    ],
)
def test_each_kind_of_bad_keyword_is_named(cell, check, detail):
    report = checked(text=["Go and Redis, a love story", "Zig"], keywords=[cell, "Zig"])
    assert report.findings[["check", "split", "row", "detail"]].to_numpy().tolist() == [
        [check, "all", 0, detail]
    ]
    assert not report.ok
    assert report.clean()["text"].tolist() == ["Zig"]


def test_texts_that_repeat_another_split_leak(posts):
    splits = data.load_splits(posts.head(60), label=None, keywords="keywords")
    copied = splits["train"].select([3])
    splits["test"] = concatenate_datasets([splits["test"], copied])
    report = quality.check_keywords(splits)
    found = report.findings.iloc[0]
    assert (found["check"], found["split"], found["row"]) == ("leak", "test", 6)
    assert len(report.clean()["test"]) == 6
    assert len(report.clean()["train"]) == len(splits["train"])
    assert "PROBLEM  leak: 1 rows, such as test 6" in str(report)


def test_flipped_labels_stand_in_the_worst_tenth(titles):
    titles = titles.groupby("label").head(800).reset_index(drop=True)
    flipped = np.random.default_rng(0).choice(len(titles), round(0.05 * len(titles)), replace=False)
    spoilt = titles.copy()
    other = spoilt["label"].map({"clickbait": "factual", "factual": "clickbait"})
    spoilt.loc[flipped, "label"] = other[flipped]
    ranked = quality.doubtful(spoilt)
    worst = ranked.head(len(titles) // 10)
    assert np.isin(flipped, worst["row"]).mean() >= 0.8
    assert ranked["score"].is_monotonic_increasing
    hit = worst[worst["row"].isin(flipped)]
    assert (hit["suggested"] != hit["label"]).mean() > 0.9


def test_doubtful_rows_keep_their_place_in_the_splits(titles):
    splits = data.load_splits(titles.groupby("label").head(60), group="pair")
    ranked = quality.doubtful(splits)
    assert len(ranked) == 120
    first = ranked.iloc[0]
    assert splits[first["split"]][int(first["row"])]["text"] == first["text"]


def test_keywords_far_from_their_text_are_doubtful():
    posts = tables.read(data.shipped("tech_keywords.csv")).head(200)
    posts.loc[17, "keywords"] = "Kubernetes operators, Elixir, quantum annealing"
    posts.loc[18, "keywords"] = None
    assert set(quality.doubtful(posts, keywords="keywords").head(2)["row"]) == {17, 18}


@pytest.mark.parametrize("labels", [["a", "a", "a", "b"], ["a"] * 4])
def test_one_label_or_one_row_of_it_cannot_be_doubted(labels):
    rows = pd.DataFrame({"text": ["one", "two", "three", "four"], "label": labels})
    with pytest.raises(ValueError, match="two labels with two rows each"):
        quality.doubtful(rows)


@pytest.mark.parametrize("ignore_numbers", [False, True])
def test_one_by_one_the_same_texts_are_duplicates(titles, ignore_numbers):
    texts = titles["text"].head(300).tolist()
    texts += [texts[5].upper() + "!", texts[9] + "s", "Version 14 of Rust is out", texts[5]]
    texts += ["Version 15 of Rust is out", "Version 15 of Rust is out"]
    pairs = quality.near_duplicates(pd.Series(texts), ignore_numbers=ignore_numbers)
    alone = [
        row
        for row, text in enumerate(texts)
        if quality.first_duplicate(text, texts[:row], ignore_numbers=ignore_numbers) is not None
    ]
    assert alone == sorted(pairs["row"])
    assert len(alone) >= 4
