"""How long near duplicates take among more and more titles; one line a figure.

Every pair compared grows with the square, MinHash with the number. Ratios come from one run. Run on
an idle machine: `make bench`; `--million` takes a million titles too.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd

from cookbook import data, surface, tables


def titles(count):
    """Put together runs of three words of shipped titles; a tenth of them stand there twice."""
    given = tables.read(data.shipped("clickbait_titles.csv"))["text"].str.split()
    runs = [" ".join(words[at : at + 3]) for words in given for at in range(len(words) - 2)]
    rng = np.random.default_rng(0)
    made = [" ".join(runs[at] for at in row) for row in rng.integers(len(runs), size=(count, 3))]
    for copy, of in rng.integers(count, size=(count // 10, 2)):
        made[copy] = f"{made[of]}s"
    return pd.Series(made)


def main():
    """Measure and print."""
    sizes, took = [8_000, 32_000, 128_000, *([1_000_000] if "--million" in sys.argv else [])], {}
    for way, most, sizes_of in (("every_pair", 10**9, sizes[:2]), ("minhash", 0, sizes)):
        for size in sizes_of:
            texts = titles(size)
            start = time.perf_counter()
            found = surface.near_duplicates(texts, exact_up_to=most)
            took[way, size] = time.perf_counter() - start
            print(f"duplicates_{way}_{size}_seconds: {took[way, size]:.4g}", flush=True)
            print(f"duplicates_{way}_{size}_found: {len(found)}", flush=True)
    ratio = took["every_pair", 32_000] / took["minhash", 32_000]
    print(f"duplicates_32000_ratio: {ratio:.4g}")
    print(f"duplicates_minhash_growth: {took['minhash', 128_000] / took['minhash', 32_000]:.4g}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"duplicates_memory_mb: {memory:.4g}")


if __name__ == "__main__":
    main()
