"""Titles a minute beside the article's loop, which asks for one after the other; one line a figure.

Both ask the same scripted server, which takes a tenth of a second for an answer and works on four
at once (OLLAMA_NUM_PARALLEL=4). The loop takes every answer; `generate_texts` filters them too.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import ollama

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from cookbook import synthesis
from tests.servers.scripted_ollama import serving, title

PER_LABEL = 60


def one_after_the_other(url):
    """Ask for every title in turn, as the article does."""
    client = ollama.Client(url)
    titles = []
    for number in range(2 * PER_LABEL):
        ask = [{"role": "user", "content": "Write a clickbait title."}]
        answer = client.chat("phi3", ask, options={"seed": number})
        titles.append(answer.message.content)
    return titles


def main():
    """Measure and print."""
    with serving(title, parallel=4, delay=0.1) as server, TemporaryDirectory() as folder:
        start = time.perf_counter()
        titles = one_after_the_other(server.url)
        loop = len(titles) / (time.perf_counter() - start)
        start = time.perf_counter()
        out = Path(folder) / "titles.csv"
        done = synthesis.generate_texts(out, per_label=PER_LABEL, host=server.url)
        ours = len(done.rows) / (time.perf_counter() - start)
        with serving(title, parallel=4, delay=0.1) as other:
            speeds = {}
            for hosts in ([server.url], [server.url, other.url]):
                start = time.perf_counter()
                out = Path(folder) / f"{len(hosts)}.csv"
                done = synthesis.generate_texts(out, per_label=5 * PER_LABEL, host=hosts)
                speeds[len(hosts)] = len(done.rows) / (time.perf_counter() - start)
    figures = {
        "synthesis_two_servers_ratio": speeds[2] / speeds[1],
        "synthesis_ratio": ours / loop,
        "synthesis_titles_per_minute_loop": 60 * loop,
        "synthesis_titles_per_minute_cookbook": 60 * ours,
    }
    for name, value in figures.items():
        print(f"{name}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main()
