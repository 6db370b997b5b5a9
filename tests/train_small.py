"""Fine-tune MiniLM on 160 titles; killed on request, without a chance to clean up.

Usage: train_small.py OUTPUT [KILL_AT_STEP] [EPOCHS]
"""

import os
import signal
import sys
from pathlib import Path

from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    set_seed,
)

from cookbook import data, features, labels, metrics, offline, training


class Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(output, kill_at=0, epochs=3):
    titles = data.read_csv(data.shipped("clickbait_titles.csv")).groupby("label").head(80)
    splits = labels.encode_labels(data.load_splits(titles))
    checkpoint = offline.minilm()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    splits = features.tokenize(splits, tokenizer)
    set_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, **labels.label_maps(splits)
    )
    trainer = Trainer(
        model=model,
        args=training.training_arguments(
            Path(output) / "checkpoints", num_train_epochs=epochs, learning_rate=1e-4, seed=3
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics.compute_metrics(list(model.config.id2label.values())),
        callbacks=[Kill(kill_at)],
    )
    start = training.last_checkpoint(trainer)
    print(f"resumed from {start and Path(start).name}")
    trainer.train(resume_from_checkpoint=start)
    trainer.save_model(Path(output) / "model")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
