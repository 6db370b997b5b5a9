"""Draw the picture of the front page from data/measured.json. Run it after a figure changed."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "notebooks" / "pictures" / "choose_your_way.png"
ROWS = [  # name, figure, dollars, what it learnt from or asks
    ("TF-IDF", "real_tfidf", "dollars_tfidf", "synthetic titles"),
    ("Frozen embeddings", "real_frozen", "dollars_frozen", "synthetic titles"),
    ("MiniLM", "real_synthetic", "dollars_minilm", "4,420 synthetic titles alone"),
    ("MiniLM", "real_unlabelled_2000", "dollars_minilm", "… and 2,000 real ones, unlabelled"),
    ("MiniLM", "real_unlabelled_8000", "dollars_minilm", "… and 8,000 real ones, unlabelled"),
    ("MiniLM", "real_labelled_50", "dollars_minilm", "… and 50 real ones, labelled*"),
    ("SmolLM2 135M, asked", "real_llm", "dollars_llm", "nothing; 20 titles"),
    ("GPT-4o mini, asked", None, "dollars_gpt4o_mini", "nothing; accuracy not measured"),
]
LEFT = 0.9


@plt.style.context("cookbook.assets.plots")
def choose_your_way(measured: dict[str, dict[str, Any]]) -> Figure:
    """Draw accuracy on real headlines, way by way, with the dollars that a million titles cost."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for row, (name, figures, dollars, learnt) in enumerate(ROWS):
        found = measured[figures] if figures else {}
        color = "C0" if name == "MiniLM" else "0.45"
        value = found.get("value", 0.0)
        if value >= LEFT:
            low, high = found.get("low", value), found.get("high", value)
            axes.plot([low, high], [row, row], color=color, linewidth=3, solid_capstyle="round")
            axes.plot(value, row, "o", color=color, markersize=8)
            axes.text(max(high, value) + 0.002, row, f"{value:.3f}", va="center")
        elif found:
            axes.text(LEFT + 0.001, row, f"◂ {value:.3f}", va="center", color=color)
        price = measured[dollars]["value"]
        told = f"${price:.2f}" if price >= 0.01 else "under $0.01"
        axes.text(1.01, row, told, va="center", transform=axes.get_yaxis_transform())
        for place, told, size in ((row - 0.16, name, 10), (row + 0.2, learnt, 8)):
            axes.text(-0.01, place, told, va="center", ha="right", fontsize=size, **_outside(axes))
    axes.set(xlim=(LEFT, 1), ylim=(len(ROWS) - 0.4, -0.6), yticks=[])
    axes.set(title="Accuracy on 2,000 real headlines", xlabel="* on 4,000 others")
    axes.text(1.01, -0.9, "dollars per\nmillion titles", fontsize=9, **_outside(axes))
    return figure


def drawn(measured: dict[str, dict[str, Any]]) -> str:
    """Return the figures that the picture shows; they are kept in it, to be compared."""
    names = [name for _, figures, dollars, _ in ROWS for name in (figures, dollars) if name]
    return ", ".join(f"{name} {measured[name]['value']}" for name in names)


def _outside(axes: Any) -> dict[str, Any]:
    return {"transform": axes.get_yaxis_transform()}


if __name__ == "__main__":
    measured = json.loads((ROOT / "data" / "measured.json").read_text("utf-8"))
    choose_your_way(measured).savefig(PICTURE, metadata={"Description": drawn(measured)})
