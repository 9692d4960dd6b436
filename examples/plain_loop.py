"""A policy-gradient loop in plain PyTorch, credit by stepcredit: 20 updates, about a minute."""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

import stepcredit as sc
from stepcredit.lab.arithmetic import grade, problems
from stepcredit.lab.sampling import sample
from stepcredit.lab.simulated_prm import Simulated
from stepcredit.lab.warmstart import WarmStartSettings, warm_start

UPDATES, PROMPTS, GROUP = 20, 12, 8


def main(updates: int = UPDATES) -> None:
    """Sample groups, score steps, shape, step."""
    folder = warm_start(WarmStartSettings(), "cache/warmstart")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1.2e-4, betas=(0.9, 0.95))
    estimator, prm = sc.PASS(weights=(1.0, 1.0, 0.3), k=0.7, clip=5.0), Simulated("noisy", seed=0)
    asked = [p.prompt for p in problems(updates * PROMPTS) for _ in range(GROUP)]
    for update in range(updates):
        prompts = asked[update * PROMPTS * GROUP :][: PROMPTS * GROUP]
        answers = sample(policy, tokenizer, prompts[::GROUP], GROUP, 0, f"update {update}")
        graded = [grade(p, a, tokenizer) for p, a in zip(prompts, answers, strict=True)]
        scores = [prm.scores(*row) for row in zip(prompts, answers, graded, strict=True)]

        starts = [tokenizer(p).input_ids for p in prompts]
        whole = [torch.tensor(s + a) for s, a in zip(starts, answers, strict=True)]
        ids = pad_sequence(whole, batch_first=True, padding_value=tokenizer.pad_token_id)
        position = torch.arange(ids.shape[1])
        first = torch.tensor([len(s) for s in starts])[:, None]
        last = torch.tensor([len(w) for w in whole])[:, None]
        mask = (position >= first) & (position < last)

        rollouts = sc.Rollouts(
            group=torch.arange(PROMPTS * GROUP) // GROUP,
            lengths=mask.sum(1),
            process=sc.Steps(ends=[g.step_ends for g in graded], scores=scores),
            outcome=[g.outcome for g in graded],
            format=[g.format for g in graded],
            format_ok=[g.format_ok for g in graded],
        )
        advantages = estimator(rollouts).padded(mask)

        logits = policy(input_ids=ids, attention_mask=(position < last).long()).logits[:, :-1]
        logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        loss = -(logprobs * advantages[:, 1:]).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        print(f"update {update + 1:3d}  right {sum(g.outcome for g in graded) / len(graded):.2f}")


if __name__ == "__main__":
    main()
