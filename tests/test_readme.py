import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("book/*.md"))]


@pytest.mark.parametrize("page", [README, ROOT / "book" / "use.md"], ids=lambda page: page.name)
def test_the_script_runs_as_it_stands(page, trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "out" / "clickbait").mkdir(parents=True)
    (tmp_path / "out" / "clickbait" / "model").symlink_to(trained.folder)
    monkeypatch.chdir(tmp_path)
    (script,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    exec(compile(script, str(page), "exec"), {})
    printed = capsys.readouterr().out
    assert "No problem found." in printed
    assert "id2label" in printed
    assert "Council approves budget" in printed


def test_the_readme_is_read_in_two_minutes():
    assert len(README.read_bytes()) <= 6000


def test_every_module_is_in_the_book():
    import cookbook

    text = (ROOT / "book" / "modules.md").read_text("utf-8")
    for name in cookbook.__all__:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_links_to_files_are_there(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for path in re.findall(r"\]\((?!https|#)(.*?)(?:#.*?)?\)", text):
        assert (page.parent / path).exists(), path
