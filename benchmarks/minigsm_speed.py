"""Problems a second that minigsm generates on one core, for each preset.

    python benchmarks/minigsm_speed.py [--count 20000]

The first problems of a process are slower, because the chains of each graph are worked out on its first use:
the table shows a cold start and the speed after it.
"""

from __future__ import annotations

import argparse
import time

from latentplan.problems.minigsm import PRESETS, MinigsmConfig, generate


def problems_per_second(config: MinigsmConfig, *, count: int, seed: int) -> float:
    start = time.process_time()
    for _ in generate(config, split="train", count=count, seed=seed):
        pass
    return count / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000, help="problems to time for each preset")
    count = parser.parse_args().count
    print(f"{'preset':<10}{'cold start':>14}{'afterwards':>14}   (problems a second, {count:,} each)")
    for name, config in PRESETS.items():
        cold, warm = (problems_per_second(config, count=count, seed=seed) for seed in (0, 1))
        print(f"{name:<10}{cold:>14,.0f}{warm:>14,.0f}")


if __name__ == "__main__":
    main()
