"""Attack the signals of the embedded task, and hold the verdicts against what training did.

    python examples/attack_lab.py [--warm FOLDER] [--prompts 64]

For every signal and method it prints which edits are exploitable; then, for each of the three
figures that a verdict could be read from, how often it agrees with training. The known runs are
those of docs/lab.md, which has their seeds and figures, and of the feasibility study that
docs/evidence.md names.
"""

import argparse

from transformers import AutoModelForCausalLM, AutoTokenizer

from stepcredit.lab.arithmetic import problems
from stepcredit.lab.lab_attack import (
    TrainedCell,
    attack_task_signal,
    attacked_answers,
    confusion_lines,
    plan_task_attack,
)
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.sampling import sample
from stepcredit.lab.simulated_prm import SIGNALS
from stepcredit.lab.tokenizer import completion_text
from stepcredit.lab.warmstart import WarmStartSettings, warm_start

GROUP = 8
METHODS = {
    "pass": ("pass", {}),
    "pure": ("pure", {}),
    "pass-min": ("pass-min", {}),
    "pass-min, outcome_in_min=0": ("pass-min", {"outcome_in_min": 0}),
    "grpo-process, k=0": ("grpo-process", {"k": 0.0}),
    "pass, scope=process": ("pass", {"scope": "process"}),
    "pass, scope=process, k=0": ("pass", {"scope": "process", "k": 0.0}),
}
PAGE, STUDY = "docs/lab.md", "feasibility study"
SAFE, HACKED = TrainedCell(False, PAGE), TrainedCell(True, PAGE)
SAFE_THEN, HACKED_THEN = TrainedCell(False, STUDY), TrainedCell(True, STUDY)
TRAINED = {
    ("noisy", "pass"): SAFE,
    ("noisy", "pure"): SAFE,
    ("noisy", "pass-min"): SAFE_THEN,
    ("noisy", "pass-min, outcome_in_min=0"): HACKED,
    ("noisy", "grpo-process, k=0"): SAFE_THEN,
    ("noisy", "pass, scope=process, k=0"): SAFE_THEN,
    ("hackable", "pass"): HACKED,
    ("hackable", "pure"): SAFE,
    ("hackable", "pass-min"): SAFE_THEN,
    ("hackable", "pass-min, outcome_in_min=0"): HACKED,
    ("hackable", "grpo-process, k=0"): HACKED_THEN,
    ("hackable", "pass, scope=process"): HACKED,
    ("hackable", "pass, scope=process, k=0"): HACKED,
    ("negative", "pass"): SAFE_THEN,
    ("negative", "pure"): HACKED_THEN,
    ("negative", "pass-min"): SAFE_THEN,
    ("negative", "grpo-process, k=0"): SAFE_THEN,
}
FIGURES = ("at the edit", "total", "mean")


def main(warm: str | None = None, prompts: int = 64, seed: int = 0) -> None:
    """Sample answers, attack every signal, print the verdicts and the confusion tables."""
    folder = warm or warm_start(WarmStartSettings(), "cache/warmstart")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    asked = [problem.prompt for problem in problems(prompts, "check", seed)]
    ids = sample(policy, tokenizer, asked, GROUP, seed, "attack")
    texts = [completion_text(row, tokenizer) for row in ids]
    answers = {prompt: texts[at * GROUP :][:GROUP] for at, prompt in enumerate(asked)}
    settings = LabSettings(compare=None)
    methods = {name: settings.estimator(*variant) for name, variant in METHODS.items()}
    plan = plan_task_attack(attacked_answers(answers), seed)
    found = {figure: {} for figure in FIGURES}
    for signal in SIGNALS:
        report = attack_task_signal(plan, signal, methods, seed)
        for method in methods:
            paid = ", ".join(report.exploitable(method)) or "no edit"
            known = TRAINED.get((signal, method))
            runs = "not known" if known is None else "hacked" if known.hacked else "not hacked"
            print(f"{signal:9} {method:27} exploitable: {paid}; in training: {runs}")
            for figure in FIGURES:
                found[figure][signal, method] = bool(report.exploitable(method, figure))
    for figure, cells in found.items():
        print(f"\nverdicts by the change of: {figure}")
        print("\n".join(confusion_lines(cells, TRAINED)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warm", help="folder of a warm start; default: it is trained or cached")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
