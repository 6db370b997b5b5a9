import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_script_in_the_readme_runs_as_it_stands(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "out" / "clickbait").mkdir(parents=True)
    (tmp_path / "out" / "clickbait" / "model").symlink_to(trained.folder)
    monkeypatch.chdir(tmp_path)
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    exec(compile(script, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert "No problem found." in printed
    assert "id2label" in printed
    assert "Council approves budget" in printed


def test_every_module_is_in_the_readme():
    import cookbook

    text = README.read_text("utf-8")
    for name in cookbook.__all__:
        assert f"| `{name}` |" in text


def test_the_pictures_are_there():
    for path in re.findall(r"!\[.*?\]\((?!https)(.*?)\)", README.read_text("utf-8")):
        assert (README.parent / path).is_file()
