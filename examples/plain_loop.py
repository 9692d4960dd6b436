"""A policy-gradient loop in plain PyTorch with advantages from stepcredit: about a minute."""

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

import stepcredit as sc
from stepcredit.lab.arithmetic import check_tokens, problems
from stepcredit.lab.sampling import sample
from stepcredit.lab.simulated_prm import Simulated
from stepcredit.lab.warmstart import WarmStartSettings, warm_start

UPDATES, PROMPTS, GROUP = 20, 12, 8


def main(updates: int = UPDATES) -> None:
    """Sample groups of responses, score their steps, compute advantages, update the policy."""
    folder = warm_start(WarmStartSettings(), "cache/warmstart")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1.2e-4, betas=(0.9, 0.95))
    estimator, prm = sc.PASS(weights=(1.0, 1.0, 0.3), k=0.7, clip=5.0), Simulated("noisy", seed=0)
    all_prompts = [p.prompt for p in problems(updates * PROMPTS) for _ in range(GROUP)]
    for update in range(updates):
        prompts = all_prompts[update * PROMPTS * GROUP :][: PROMPTS * GROUP]
        responses = sample(policy, tokenizer, prompts[::GROUP], GROUP, 0, f"update {update}")
        graded = [check_tokens(p, r, tokenizer) for p, r in zip(prompts, responses, strict=True)]
        scores = [prm.scores(*row) for row in zip(prompts, responses, graded, strict=True)]

        prompt_ids = [tokenizer(p).input_ids for p in prompts]
        rows = [torch.tensor(p + r) for p, r in zip(prompt_ids, responses, strict=True)]
        ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        position = torch.arange(ids.shape[1])
        first = torch.tensor([len(p) for p in prompt_ids])[:, None]
        end = torch.tensor([len(row) for row in rows])[:, None]
        mask = (position >= first) & (position < end)

        rollouts = sc.Rollouts(
            group=torch.arange(PROMPTS * GROUP) // GROUP,
            lengths=mask.sum(1),
            process=sc.Steps(ends=[g.step_ends for g in graded], scores=scores),
            outcome=[g.outcome for g in graded],
            format=[g.format for g in graded],
            format_ok=[g.format_ok for g in graded],
        )
        advantages = estimator(rollouts).padded(mask)

        logits = policy(input_ids=ids, attention_mask=(position < end).long()).logits[:, :-1]
        logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        loss = -(logprobs * advantages[:, 1:]).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        print(f"update {update + 1:3d}  correct {sum(g.outcome for g in graded) / len(graded):.2f}")


if __name__ == "__main__":
    main()
