"""Losses for the plain Trainer: labels that are probabilities, and labels that count more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers import DataCollatorForTokenClassification

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def soft_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return the cross-entropy with class ids or probabilities: a Trainer's `compute_loss_func`.

    For one label a text, or one a token. Where texts may have several labels, leave it out: the
    model's own loss takes probabilities.

    Args:
        outputs: Those of the model, with logits of shape (…, labels).
        labels: Class ids of shape (…), or probabilities of shape (…, labels); -100 counts nothing.
        num_items_in_batch: Given by the Trainer: labels other than -100 in all accumulated batches.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> soft_loss({"logits": logits}, torch.tensor([[1.0, 0.0]])).item().__round__(3)
        0.127
    """
    logits = outputs["logits"].float().flatten(0, -2)
    soft = labels.is_floating_point()
    labels = labels.flatten(0, -2) if soft else labels.flatten()
    real = (labels[:, 0] if soft else labels) != -100
    summed = torch.nn.functional.cross_entropy(logits[real], labels[real], reduction="sum")
    if num_items_in_batch is None:
        return summed / real.sum()
    # Of probabilities it counts each.
    return summed * (logits.shape[-1] if soft else 1) / num_items_in_batch.sum()


def class_weights(rows: Dataset, weights: Mapping[str, float] | str = "balanced") -> torch.Tensor:
    """Return a weight per label, for `weighted_loss`: rare labels count more.

    Args:
        rows: The training split, as `labels.encode_labels` returns it.
        weights: `"balanced"`, so that every label weighs as much as another, whatever its number of
            texts: n / (labels · n of the label), as in scikit-learn; where a text may have several
            labels, texts without the label / texts with it, as torch's `pos_weight`. Or a table of
            weights by name; a label that isn't named has 1.

    Raises:
        ValueError: A name is none of a label, or a label has no text to be weighed by.

    Example:
        >>> from datasets import ClassLabel, Dataset, Features
        >>> kinds = Features({"label": ClassLabel(names=["common", "rare"])})
        >>> class_weights(Dataset.from_dict({"label": [0, 0, 0, 1]}, kinds)).tolist()
        [0.6666666865348816, 2.0]
    """
    several = "label_names" in rows.features
    names = (rows.features["label_names"].feature if several else rows.features["label"]).names
    if not isinstance(weights, str):
        if unknown := set(weights) - set(names):
            raise ValueError(f"There are no labels {sorted(unknown)}; there are {names}.")
        return torch.tensor([float(weights.get(name, 1)) for name in names])
    label = np.array(rows["label"][:])
    counts = label.sum(axis=0) if several else np.bincount(label, minlength=len(names))
    if weights != "balanced" or not counts.all():
        lacking = [name for name, count in zip(names, counts, strict=True) if not count]
        raise ValueError(
            f"{weights=} must be 'balanced' or a table; labels without texts: {lacking}"
        )
    found = (len(label) - counts) / counts
    if not several:
        found = compute_class_weight("balanced", classes=np.arange(len(names)), y=label)
    return torch.tensor(found, dtype=torch.float32)


def weighted_loss(weights: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Make a Trainer's `compute_loss_func` that counts some labels more than others.

    Cross-entropy with class ids; where a text may have several labels (1 or 0 for each), binary
    cross-entropy, in which the weight is that of the texts which have the label.

    Args:
        weights: A weight per label, from `class_weights`.

    Example:
        >>> loss = weighted_loss(torch.tensor([1.0, 3.0]))
        >>> loss({"logits": torch.zeros(1, 2)}, torch.tensor([1])).item().__round__(3)
        2.079
    """

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        given = weights.to(logits.device)
        functional = torch.nn.functional
        if labels.is_floating_point():
            summed = functional.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=given, reduction="sum"
            )
        else:
            summed = functional.cross_entropy(logits, labels, given, reduction="sum")
        # Texts, or texts times labels: what the Trainer counts over accumulated batches.
        return summed / (labels.numel() if num_items_in_batch is None else num_items_in_batch)

    return loss


def soft_collator(
    tokenizer: PreTrainedTokenizerBase, pad_to_multiple_of: int | None = None
) -> Callable[[list[dict[str, Any]]], Any]:
    """Make the collator of a marker whose labels are probabilities, or class ids.

    `DataCollatorForTokenClassification` alone takes any label for a class id.

    Args:
        tokenizer: The model's.
        pad_to_multiple_of: As there.

    Returns:
        A function from rows of `features.tokenize_marker` to a batch, padded with -100.
    """
    plain = DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=pad_to_multiple_of)

    def collate(rows: list[dict[str, Any]]) -> Any:
        if np.ndim(rows[0]["labels"]) == 1:
            return plain(rows)
        batch = plain([{**row, "labels": [0] * len(row["labels"])} for row in rows])
        soft = torch.full((*batch["labels"].shape, 3), -100.0)
        soft[batch["labels"] == 0] = torch.tensor(
            np.concatenate([r["labels"] for r in rows])
        ).float()
        return {**batch, "labels": soft}

    return collate
