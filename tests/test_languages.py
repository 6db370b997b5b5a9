"""Other languages through every step, from the question to the card: mechanics, not quality."""

import json
from itertools import product

import pandas as pd
import pytest

from cookbook import inference, tables, tasks
from tests import small
from tests.servers.scripted_ollama import serving

TASK = """
name = "desk"
kind = "{kind}"
language = "{language}"
per_label = 30
base_model = "base"
epochs = 6
learning_rate = 5e-3
unlabelled = "inbox.csv"
measured = "hand.csv"
[llm]
model = "phi3"
host = "{host}"
[labels."{names[0]}"]
definition = "{names[0]}: {examples[0]}"
examples = [["{things[0]}", "{examples[0]}"]]
[labels."{names[1]}"]
definition = "{names[1]}: {examples[1]}"
examples = [["{things[0]}", "{examples[1]}"]]
"""
SWEDISH = {
    "language": "svenska",
    "code": "sv",
    "english": "Swedish",
    "kind": "ärende",
    "names": ("räkning", "fel"),
    "things": ["routern", "cykeln", "gymkortet", "färjan", "tvättmaskinen", "glasögonen", "ölet"],
    "examples": ("Varför drogs det två gånger?", "Kortet går inte att läsa på någon dörr."),
    "forms": (
        """Fakturan för {} är dubbelt så hög
            Jag vill ha pengarna tillbaka för {} nu
            Hur mycket kostar {} per månad egentligen
            Ni drog betalningen för {} en gång till
            Kan jag betala {} i tre delar
            Priset på {} stämmer inte med avtalet""",
        """Efter uppdateringen startar {} inte längre
            Skärmen vid {} är helt svart i dag
            Det piper konstigt när {} används
            Ljudet försvinner så fort {} är på
            Koden till {} godtas inte av appen
            Inget händer när jag trycker på {}""",
    ),
}
JAPANESE = {
    "language": "ja",
    "code": "ja",
    "english": "Japanese",
    "kind": "問い合わせ",
    "names": ("請求", "故障"),
    "things": ["ルーター", "自転車", "会員カード", "フェリー", "洗濯機", "眼鏡", "携帯電話"],
    "examples": ("五月に二回引き落とされたのはなぜですか。", "どのドアでもカードが読めません。"),
    "forms": (
        """{}の請求書が二倍になっています
            {}の返金をお願いできますか
            毎月の{}の料金はいくらでしょう
            先週また{}の代金が引かれました
            分割で{}を払えますか教えてください
            契約書と{}の値段が違うようです""",
        """更新してから{}が動かなくなりました
            今朝から{}の画面が真っ暗です
            使うたびに{}から変な音がします
            電源を入れると{}の音が消えます
            アプリで{}の番号が通りません
            ボタンを押しても{}は反応なし""",
    ),
}


def messages(of, label):
    forms = map(str.strip, of["forms"][label].splitlines())
    return [form.format(thing) for form, thing in product(forms, of["things"])]


def told(of):
    """Answer with a message of the label that is asked for, another each time."""
    given = [iter(messages(of, 0)), iter(messages(of, 1))]

    def answer(request, number):
        system = request["messages"][0]["content"]
        label = int(f"is {of['names'][1]}:" in system)
        return json.dumps({of["kind"]: next(given[label], "")}, ensure_ascii=False)

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("of", [SWEDISH, JAPANESE], ids=["Swedish", "Japanese"])
def test_a_task_goes_from_the_question_to_the_card(of, tmp_path):
    every = [(text, of["names"][label]) for label in (0, 1) for text in messages(of, label)]
    small.tiny_base(tmp_path / "base", [text for text, _ in every])
    pd.DataFrame({"text": [text for text, _ in every]}).to_csv(tmp_path / "inbox.csv", index=False)
    hand = pd.DataFrame(every, columns=["text", "label"]).groupby("label").tail(8)
    tables.write(hand, tmp_path / "hand.csv")
    with serving(told(of)) as server:
        text = TASK.format(host=server.url, **of).replace(
            '"base"', json.dumps(str(tmp_path / "base"))
        )
        (tmp_path / "task.toml").write_text(text, "utf-8")
        done = tasks.make(tmp_path / "task.toml")
        system = server.requests[0]["messages"][0]["content"]
    assert f"Write in {of['english']}." in system
    folder = tmp_path / "desk"
    written = tables.read(folder / "texts.csv")
    assert written["label"].value_counts().to_dict() == dict.fromkeys(of["names"], 30)
    assert set(written["text"]) <= {text for text, _ in every}
    assert set(done.done) == set(tasks.STEPS)
    figures = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert set(figures["real"]) >= {"accuracy", f"f1_{of['names'][0]}"}
    answers = inference.classify(hand["text"], folder / "int8")
    assert set(answers["label"]) <= set(of["names"])
    assert answers["text"].tolist() == hand["text"].tolist()
    card = (folder / "to_push" / "README.md").read_text("utf-8")
    assert f"language: {of['code']}" in card
    assert of["names"][0] in card


@pytest.mark.slow
def test_keywords_of_a_script_without_spaces_are_marked(tmp_path):
    texts = messages(JAPANESE, 0) + messages(JAPANESE, 1)

    def answer(request, number):
        asked = [json.loads(line) for line in request["messages"][-1]["content"].splitlines()]
        found = [
            {
                "id": one["id"],
                "keywords": [thing for thing in JAPANESE["things"] if thing in one["text"]],
            }
            for one in asked
        ]
        return json.dumps({"answers": found}, ensure_ascii=False)

    small.tiny_base(tmp_path / "base", texts)
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "posts.csv", index=False)
    base = json.dumps(str(tmp_path / "base"))
    with serving(answer) as server:
        (tmp_path / "task.toml").write_text(
            f'name = "posts"\nlanguage = "ja"\ntexts = "posts.csv"\nbase_model = {base}\n'
            f'epochs = 40\nlearning_rate = 1e-2\n[llm]\nmodel = "phi3"\nhost = "{server.url}"\n'
            '[fields]\nkeywords = "物の名前"\n',
            "utf-8",
        )
        tasks.make(tmp_path / "task.toml")
        assert "They are in Japanese" in server.requests[0]["messages"][0]["content"]
    folder = tmp_path / "posts"
    figures = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert figures["test"]["true"] == 1  # 'ルーター' is one keyword, not four signs
    found = inference.extract_keywords(texts, folder / "int8")
    assert any(found)
    assert all(name in text for text, names in zip(texts, found, strict=True) for name in names)
    assert "language: ja" in (folder / "to_push" / "README.md").read_text("utf-8")
