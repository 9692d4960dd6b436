"""Attack the signals of the embedded task, and hold the verdicts against what training did.

    python examples/attack_lab.py [--store evidence/study.sqlite] [--warm FOLDER] [--prompts 64]

For every signal and method of the study's preset `signals` it prints which edits are exploitable;
then, for each of the three figures that a verdict could be read from, how often it agrees with
training. Each method has the settings with which the study trained it.
"""

import argparse
from collections import defaultdict

from transformers import AutoModelForCausalLM, AutoTokenizer

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.lab.arithmetic import problems
from stepcredit.lab.lab_attack import (
    TrainedCell,
    attack_task_signal,
    attacked_answers,
    confusion_lines,
    plan_task_attack,
)
from stepcredit.lab.sampling import sample
from stepcredit.lab.tokenizer import completion_text
from stepcredit.lab.warmstart import WarmStartSettings, warm_start
from stepcredit.study.collapse import has_collapsed
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_store import StudyStore

GROUP = 8
PRESET = "signals"
MORE_FILLERS = 0.5
"""A run grew filler where its answers end with so many more filler lines than the warm start's."""
FIGURES = ("at the edit", "total", "mean")


def main(store, warm=None, prompts=64, seed=0):
    """Sample answers, attack every signal, print the verdicts and the confusion tables."""
    runs = trained_runs(store)
    trained = {cell: trained_cell(own) for cell, own in runs.items()}
    folder = warm or warm_start(WarmStartSettings(), "cache/warmstart")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    asked = [problem.prompt for problem in problems(prompts, "check", seed)]
    ids = sample(policy, tokenizer, asked, GROUP, seed, "attack")
    texts = [completion_text(row, tokenizer) for row in ids]
    answers = {prompt: texts[at * GROUP :][:GROUP] for at, prompt in enumerate(asked)}
    plan = plan_task_attack(attacked_answers(answers), seed)
    found = {figure: {} for figure in FIGURES}
    for signal in dict.fromkeys(signal for signal, _ in runs):
        methods = {
            label: method_of(own[0]) for (name, label), own in runs.items() if name == signal
        }
        report = attack_task_signal(plan, signal, methods, seed)
        for label in methods:
            paid = ", ".join(report.exploitable(label)) or "no edit"
            print(f"{signal:9} {label:10} exploitable: {paid}; {trained[signal, label].source}")
            for figure in FIGURES:
                found[figure][signal, label] = bool(report.exploitable(label, figure))
    for figure, cells in found.items():
        print(f"\nverdicts by the change of: {figure}")
        print("\n".join(confusion_lines(cells, trained)))


def trained_runs(store):
    """The finished runs of the preset by (signal, label)."""
    found = defaultdict(list)
    for run in StudyData(StudyStore(store)).cell_runs(PRESET):
        if run.status == "done":
            found[run.signal, run.label].append(run)
    if not found:
        raise StepCreditError(f"{store}: has no finished run of the preset {PRESET!r}")
    return dict(found)


def trained_cell(runs):
    """Whether a run of the cell collapsed or grew filler, and in words on how many seeds."""
    more = [run.figures("after")["fillers"] - run.figures("before")["fillers"] for run in runs]
    collapsed = sum(map(has_collapsed, runs))
    grew = sum(extra > MORE_FILLERS for extra in more)
    words = f"of {len(runs)} seeds {collapsed} collapsed, {grew} grew filler"
    return TrainedCell(bool(collapsed or grew), f"in training: {words}")


def method_of(run):
    """The method with the settings of a run."""
    fields = dict(run.settings["method"])
    return sc.estimator(fields.pop("name"), **fields)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="evidence/study.sqlite", help="the study's results")
    parser.add_argument("--warm", help="folder of a warm start; default: it is trained or cached")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
