"""Sentence encoders: loaded, and fine-tuned on pairs of texts, the first half of SetFit."""

from __future__ import annotations

import logging
import random
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from cookbook import extra
from cookbook.label_cells import one_hot

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@cache
def load(model: str) -> Any:
    """Load a SentenceTransformer, once.

    Args:
        model: Name on the Hub, or folder.

    Raises:
        OSError: There is no such model, or the Hub is out of reach.
    """
    with extra("compare"):
        from sentence_transformers import SentenceTransformer
    return SentenceTransformer(model)


def tune(
    model: str, texts: Sequence[str], sets: Sequence[list[str]], steps: int, batch: int, seed: int
) -> Any:
    """Fine-tune a sentence encoder so that texts with a label in common come close, with SetFit.

    Pairs grow with the square of the texts: no more are made than the steps take, from as many
    texts, drawn at random. Nothing is left on disk or reported, and the caller's random numbers
    stay as they are.

    Args:
        model: As for `load`.
        texts: Training texts.
        sets: Their labels.
        steps: Training steps; few pairs are gone through again and again.
        batch: Pairs a step.
        seed: Seed of the draw and of the training.

    Returns:
        The fine-tuned encoder; the one that `load` keeps stays as it is.

    Raises:
        ValueError: No texts share a label, or all do.
        OSError: As `load` does.
    """
    with extra("compare"), warnings.catch_warnings():  # the import shows more of them
        import setfit
    import torch
    from transformers import DefaultFlowCallback

    drawn = np.random.default_rng(seed).permutation(len(texts))[: steps * batch]
    targets = one_hot(sets, sorted(set(chain.from_iterable(sets))))[drawn].astype(int)
    alike = targets @ targets.T > 0
    if alike.all() or not alike.any():
        raise ValueError(
            f"SetFit learns from texts that share a label and texts that don't; of {len(drawn)} "
            f"texts {'all' if alike.any() else 'no two'} do. Bring more texts, or more labels."
        )
    encoder = deepcopy(load(model))
    with tempfile.TemporaryDirectory() as folder, _left_alone():
        arguments = setfit.TrainingArguments(
            folder,
            batch_size=batch,
            max_steps=steps,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            seed=seed,
        )
        # A text with one label is the case of one among several.
        whole = setfit.SetFitModel(encoder, LogisticRegression(), "one-vs-rest")
        trainer = setfit.Trainer(whole, arguments)
        # Without those that draw bars, print, or gather examples for a card.
        trainer.st_trainer.callback_handler.callbacks = [DefaultFlowCallback()]
        trainer.st_trainer.args.dataloader_pin_memory = torch.cuda.is_available()
        trainer.train_embeddings([texts[i] for i in drawn], targets.tolist())
    return encoder


@contextmanager
def _left_alone() -> Iterator[None]:
    """Put back the caller's random numbers, which SetFit seeds, and what its log says."""
    import torch

    log = logging.getLogger("setfit")
    level, drawn = log.level, (random.getstate(), np.random.get_state())  # noqa: NPY002
    log.setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        log.setLevel(level)
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])  # noqa: NPY002
