"""Fine-tune the small BART on 60 posts, validated on one; killed on request.

Usage: train_small_seq2seq.py OUTPUT [KILL_AT_STEP]
"""

import os
import signal
import sys
from pathlib import Path

from datasets import DatasetDict
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    TrainerCallback,
    set_seed,
)

from cookbook import data, features, metrics, offline, training


class Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(output, kill_at=0):
    posts = data.read_csv(data.shipped("tech_keywords.csv"), label=None).head(70)
    splits = data.load_splits(posts, label=None, keywords="keywords")
    splits = DatasetDict(train=splits["train"], validation=splits["validation"].select([0]))
    tokenizer = AutoTokenizer.from_pretrained(offline.minilm())
    set_seed(3)
    model = offline.warm_start_bart(splits["train"]["text"][:], splits["train"]["keywords"][:])
    rows = features.tokenize_seq2seq(splits, tokenizer)
    trainer = Seq2SeqTrainer(
        model=model,
        args=training.seq2seq_arguments(
            Path(output) / "checkpoints",
            batch_size=14,
            num_train_epochs=3,
            learning_rate=1e-3,
            generation_max_length=20,
            seed=3,
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_metrics=metrics.compute_keyphrase_metrics(tokenizer),
        callbacks=[Kill(kill_at)],
    )
    start = training.last_checkpoint(trainer)
    print(f"resumed from {start and Path(start).name}")
    trainer.train(resume_from_checkpoint=start)
    trainer.save_model(Path(output) / "model")
    print(sorted(trainer.state.log_history[-2]))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
