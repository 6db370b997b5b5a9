"""Many texts to labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def classify(
    texts: Sequence[str],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
) -> pd.DataFrame:
    """Label many texts.

    Texts are sorted by length first, so that a batch has next to no padding, and returned in the
    order they came. Probabilities are those of `pipeline("text-classification", top_k=None)`.

    Args:
        texts: The texts.
        model: A fine-tuned classifier, its folder, or its name on the Hub.
        tokenizer: Its tokenizer; None where `model` is a folder or a name.
        batch_size: Texts at once.
        max_length: Tokens at most; None for what the tokenizer allows.

    Returns:
        One row per text: `text`, `label`, `score` (probability of that label, 0 to 1) and one
        column of probabilities per label.

    Raises:
        ValueError: A text is no string (names its position), or the tokenizer is missing.
        OSError: There is no such model; says so.
    """
    texts = list(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {row} is {text!r}, which is no string.")
    network: Any = model
    if isinstance(model, (str, Path)):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        network = AutoModelForSequenceClassification.from_pretrained(model)
    if tokenizer is None:
        raise ValueError("Pass the tokenizer along with the model, or the model's folder alone.")

    order = np.argsort([len(text) for text in texts], kind="stable")
    names = [network.config.id2label[i] for i in range(network.config.num_labels)]
    probabilities = np.zeros((len(texts), len(names)))
    was_training = network.training
    network.eval()
    starts = range(0, len(texts), batch_size)
    with torch.inference_mode():
        for start in tqdm(starts, desc="Classify", leave=False, disable=len(starts) < 20):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(network.device)
            logits = network(**batch).logits.float()
            probabilities[rows] = torch.softmax(logits, dim=-1).cpu().numpy()
    network.train(was_training)
    best = probabilities.argmax(axis=1) if texts else np.array([], dtype=int)
    return pd.DataFrame(
        {
            "text": texts,
            "label": [names[i] for i in best],
            "score": probabilities.max(axis=1) if texts else [],
            **{name: probabilities[:, i] for i, name in enumerate(names)},
        }
    )


def worst_mistakes(answers: pd.DataFrame, labels: Sequence[str], n: int = 10) -> pd.DataFrame:
    """List the mistakes that the model was surest of: often a wrong label, or a gap in the data.

    Args:
        answers: What `classify` returned.
        labels: The true label name of each text.
        n: Mistakes at most.

    Returns:
        Columns `text`, `label` (true), `predicted`, `score`, the surest mistake first.

    Example:
        >>> import pandas as pd
        >>> answers = pd.DataFrame({"text": ["A", "B"], "label": ["x", "x"], "score": [0.9, 0.8]})
        >>> worst_mistakes(answers, ["x", "y"])["text"].tolist()
        ['B']
    """
    table = answers[["text", "label", "score"]].rename(columns={"label": "predicted"})
    table.insert(1, "label", list(labels))
    wrong = table[table["label"] != table["predicted"]]
    return wrong.sort_values("score", ascending=False).head(n).reset_index(drop=True)
