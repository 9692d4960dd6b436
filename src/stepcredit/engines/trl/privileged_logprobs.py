"""The policy's log-probs with a context in the prompt, for the signal `self-teacher`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from stepcredit.engines.run_record import by_stream
from stepcredit.engines.trl.generation import Generation
from stepcredit.engines.trl.policy_logprobs import OF_IMAGES, as_lists, policy_forward
from stepcredit.errors import EngineError
from stepcredit.signals.models.batching import padded_ids
from stepcredit.signals.models.privileged_prompt import Context
from stepcredit.signals.models.ratios import log_ratios, models_from_rows
from stepcredit.signals.models.self_teacher import SelfTeacher

TEACHER = "teacher"
NO_CONTEXT = "stepcredit/no_context_share"
"""The metric: the share of the responses that have no context, whose scores are 0."""


def trained_teacher(process_signal: Any) -> SelfTeacher | None:
    """The self-teacher whose teacher is the policy in training; None: there is none.

    Args:
        process_signal: as the trainer takes it.

    Raises:
        EngineError: other signals read a teacher's log-probs from the rows too.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> trained_teacher({"told": signal("self-teacher")}).contexts
        ('answer',)
        >>> trained_teacher(signal("self-teacher", teacher="models/before")) is None
        True
    """
    reading = [each for each in log_ratios(process_signal) if TEACHER in models_from_rows(each)]
    found = [each for each in reading if isinstance(each, SelfTeacher)]
    if found and len(reading) > 1:
        reason = f"{len(reading)} signals read teacher_logprobs, but the trainer computes those of"
        reason = f"{reason} one self-teacher: name a teacher for the others"
        raise EngineError(reason, field="process_signal")
    return found[0] if found else None


def teacher_stream(teacher: SelfTeacher, process_signal: Any) -> str:
    """The stream that a self-teacher is in, by which its time is measured.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> own = signal("self-teacher")
        >>> teacher_stream(own, own), teacher_stream(own, {"told": own})
        ('process', 'told')
    """
    sources = by_stream(process_signal).items()
    return next(name for name, source in sources if any(x is teacher for x in log_ratios(source)))


def with_privileged_logprobs(
    trainer: Any, signal: SelfTeacher, generation: Generation, output: Mapping[str, Any]
) -> Generation:
    """A generation with the log-probs of the policy that reads each response's context.

    All processes run the same number of forward passes: a response without context is read after
    its own prompt, and the signal gives it scores of 0. The student's prompts are not changed.

    Args:
        trainer: TRL's.
        signal: the self-teacher.
        generation: what was sampled, with outcomes and groups.
        output: of TRL's `_generate_and_score_completions`.

    Raises:
        RolloutError: as `SelfTeacher` for its contexts.
        EngineError: prompts with images, or longer than the model's context.
    """
    for name in OF_IMAGES:
        if name in output:
            reason = f"{signal.name} can't put a context into a prompt with images ({name})"
            raise EngineError(reason, field="process_signal")
    contexts = _contexts(signal, generation)
    prompts = [
        signal.privilege.prompt_ids(response, context, generation.tokenizer)
        if context
        else response.prompt_ids or ()
        for response, context in zip(generation.responses, contexts, strict=True)
    ]
    _check_positions(trainer, prompts, generation.lengths)
    read = padded_ids(prompts, output["prompt_ids"].device, left=True)
    told = {**output, "prompt_ids": read["input_ids"], "prompt_mask": read["attention_mask"]}
    width, lengths = output["completion_ids"].shape[1], torch.tensor(generation.lengths)
    written = torch.arange(width) < lengths[:, None]
    found = policy_forward(trainer, told, written).detach().float().cpu()
    absent, count = map(
        sum, zip(*gather_object([(contexts.count({}), len(contexts))]), strict=True)
    )
    trainer._metrics[trainer._mode()][NO_CONTEXT].append(absent / count)
    rows = as_lists({TEACHER: found}, generation.lengths)
    return generation.with_logprobs(TEACHER, rows[TEACHER])


def _contexts(signal: SelfTeacher, generation: Generation) -> list[Context]:
    """The contexts of this process's responses; siblings may be on another process."""
    if signal.cacheable:
        return signal.privilege.read(generation.responses)
    responses, own = generation.responses_of_all_processes
    found = signal.privilege.read(responses)
    return [found[row] for row in own.tolist()]


def _check_positions(trainer: Any, prompts: Sequence[Sequence[int]], lengths: list[int]) -> None:
    config = trainer.accelerator.unwrap_model(trainer.model).config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        if most is not None and len(prompt) + length > most:
            reason = (
                f"needs {len(prompt) + length} positions with its context, the model has {most}"
            )
            raise EngineError(reason, row=row, field="process_signal")
