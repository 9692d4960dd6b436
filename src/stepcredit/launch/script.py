"""Trains any causal language model on any dataset, by a YAML file and flags."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import AutoTokenizer
from trl import ModelConfig, get_peft_config, get_quantization_config

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.run_record import lines_of
from stepcredit.engines.trl.checkpointing import RESUME, last_checkpoint
from stepcredit.engines.trl.generation_file import set_rollouts_aside
from stepcredit.engines.trl.trainer import StepCreditGRPOTrainer
from stepcredit.errors import SettingError, SeveralErrors, StepCreditError, first_line
from stepcredit.launch.datasets import (
    check_split,
    load_rows,
    with_named_columns,
    with_prompts,
    within_length,
)
from stepcredit.launch.machine_checks import as_on_cpu, check_loggers, check_sampler
from stepcredit.launch.recipe import (
    IMPORT,
    Recipe,
    RecipeParser,
    help_text,
)
from stepcredit.launch.recipe_fields import mapping_of
from stepcredit.launch.recipe_preflight import (
    Ingredients,
    check_beginning,
    check_recipe,
    checked_recipe,
    resumes_if_it_can,
)
from stepcredit.launch.smoke import CreditCount, for_smoke_test
from stepcredit.settings.modules import import_named, object_named

REFUSED, FAILED = 2, 1


def train_from_flags(flags: Sequence[str] | None = None) -> int:
    """Train with the settings in the flags and the YAML file.

    Args:
        flags: of the command line; None: those of this process.

    Returns:
        0: trained; 2: a key, value, file or column is refused; 1: a signal or reward failed in
        training. A refusal or failure prints one line on stderr, which begins with the key.

    Example:
        >>> train_from_flags(["--config", "no-such-recipe.yaml"])
        2
    """
    given = list(sys.argv[1:] if flags is None else flags)
    if {"-h", "--help", "--help-all"} & set(given):
        print(help_text(everything="--help-all" in given), end="")
        return 0
    found = Preflight()
    with ExitStack() as stack:
        try:
            made = _preflight(found, given, stack)
            if "--check" in given:
                _say_all(found, made)
                return REFUSED if found.errors else 0
            found.stop()
            _say(found.summary)
            assert made.recipe is not None
            trainer, recipe = trainer_of(made), made.recipe
            resume = checkpoint_of(trainer.args)
        except (StepCreditError, ValueError, ImportError, OSError) as error:
            return _print_error(error, REFUSED)
        except Exception as error:
            if error not in found.errors:
                raise
            return _print_error(error, REFUSED)
        count = CreditCount(trainer)
        if "--smoke" in given:
            trainer.add_callback(count)
        try:
            train_and_save(trainer, recipe, resume)
            if "--smoke" in given:
                _say(f"smoke: {count.summary}")
        except StepCreditError as error:
            return _print_error(error, FAILED)
    return 0


def _print_error(error: Exception, code: int) -> int:
    lines = (
        map(first_line, error.errors) if isinstance(error, SeveralErrors) else [first_line(error)]
    )
    print(*lines, sep="\n", file=sys.stderr)
    return code


def _preflight(found: Preflight, flags: list[str], stack: ExitStack) -> Ingredients:
    """The recipe's ingredients, made tiny with `--smoke`; its notes are printed."""
    rest = [flag for flag in flags if flag not in ("--smoke", "--check")]
    faults: list[SettingError] = []
    values, notes = RecipeParser().values(rest, faults)
    for fault in faults:
        found.refuse("keys and flags", fault)
    found.left_out.update(str(fault.field) for fault in faults)
    if values[IMPORT] is not None:
        found.run("modules of your own", lambda: import_key(values[IMPORT]))
    if "--smoke" in flags:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stepcredit-smoke-")))
        values, changed = for_smoke_test(values, folder)
        notes = (*notes, *(f"smoke: {line}" for line in changed))
        found.skip("the recipe's own models, servers and rows", "--smoke replaces them")
    is_check = "--check" in flags
    elsewhere = as_on_cpu(values) if is_check else []
    if elsewhere:
        line = f"it has no GPU: the run is checked as on a CPU, without {', '.join(elsewhere)}"
        found.note("this machine", line)
    recipe = checked_recipe(found, values, notes)
    for note in notes:
        _say(note)
    if recipe is None:
        return Ingredients()
    made = check_recipe(
        found, recipe, tokenizer_of=_policy_tokenizer, rows_of=_rows, tools_of=tools_of
    )
    check_sampler(found, recipe.training, is_elsewhere=bool(elsewhere), waits=not is_check)
    check_loggers(found, recipe.training)
    checkpoint, before = None, len(found.errors)
    if recipe.training.resume_from_checkpoint is not None:
        checkpoint = found.run(RESUME, lambda: named_checkpoint(recipe.training))
    if len(found.errors) == before:
        check_beginning(found, made, checkpoint)
    return made


def _say_all(found: Preflight, made: Ingredients) -> None:
    """Print the results, the credit and the estimate, then every fault on standard error."""
    credit = lines_of(made.record) if made.record is not None else []
    for line in (*found.lines(), "", *credit, "", *made.sizes):
        _say(line)
    if found.errors:
        _say(f"{len(found.errors)} faults")
        _print_error(SeveralErrors(found.errors), REFUSED)
    else:
        _say(found.summary)


def import_key(names: str | Sequence[str] | None) -> None:
    """Import the modules that the key `import` names, in this process.

    Raises:
        SettingError: `import: MODULE: reason`.
    """
    try:
        import_named(names)
    except SettingError as error:
        raise error.at(place=IMPORT) from error.__cause__


def _say(line: str) -> None:
    if PartialState().is_main_process:
        print(line, flush=True)


def trainer_of_recipe(recipe: Recipe) -> StepCreditGRPOTrainer:
    """The trainer of a recipe, after its preflight.

    Raises:
        SettingError, EngineError, ValueError, ImportError, OSError: a refused setting; the message
            begins with the key. Of several, `SeveralErrors`.
    """
    found = Preflight()
    made = check_recipe(
        found, recipe, tokenizer_of=_policy_tokenizer, rows_of=_rows, tools_of=tools_of
    )
    found.stop()
    return trainer_of(made)


def trainer_of(made: Ingredients) -> StepCreditGRPOTrainer:
    """The trainer of what the preflight has made; the signals' models are not loaded again."""
    assert made.recipe is not None
    assert made.credit is not None
    training, model = made.recipe.training, made.recipe.model
    given = mapping_of(training.model_init_kwargs, "model_init_kwargs")
    training.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
    } | given
    return StepCreditGRPOTrainer(
        model=model.model_name_or_path,
        args=training,
        reward_funcs=made.functions,
        train_dataset=made.rows,
        eval_dataset=made.eval_rows,
        processing_class=made.tokenizer,
        peft_config=get_peft_config(model),
        quantization_config=get_quantization_config(model),
        process_signal=made.credit["process_signal"],
        logprobs=made.credit["logprobs"],
        preflight=False,
        **made.tools,
    )


def tools_of(addresses: Sequence[str] | None) -> dict[str, Any]:
    """The trainer's keyword for the tools that a recipe names; nothing where it names none.

    Args:
        addresses: each MODULE:FUNCTION.

    Raises:
        SettingError: one that can't be imported.

    Example:
        >>> [tool.__name__ for tool in tools_of(["math:hypot"])["tools"]], tools_of(None)
        (['hypot'], {})
    """
    found = []
    for address in addresses or ():
        try:
            found.append(object_named(address))
        except Exception as error:  # whatever the module raises
            reason = f"{address}: {type(error).__name__}: {first_line(error)}"
            raise SettingError(reason, field="tools") from error
    return {"tools": found} if found else {}


def _policy_tokenizer(recipe: Recipe) -> Any:
    """The policy's tokenizer, with a chat template where prompts become conversations."""
    tokenizer = _tokenizer(recipe.model, recipe.training)
    if recipe.arguments.chat and tokenizer.chat_template is None:
        name = recipe.model.model_name_or_path
        reason = f"{name} has no chat template: set it to false, for texts"
        raise SettingError(reason, field="chat")
    return tokenizer


def _tokenizer(model: ModelConfig, training: Any) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            model.model_name_or_path,
            revision=model.model_revision,
            trust_remote_code=training.trust_remote_code,
            truncation_side="left",
            padding_side="left",
        )
    except (OSError, ValueError) as error:
        raise SettingError(first_line(error), field="model_name_or_path") from error


def _rows(recipe: Recipe, tokenizer: Any, use: str, **template: Any) -> Dataset:
    """The rows to train or to evaluate on. One process makes them, the others read its cache."""
    arguments: Any = recipe.arguments
    own = use == "eval" and arguments.eval_dataset_name is not None
    setting = "eval_dataset_name" if own else "dataset_name"
    splits = "dataset_test_split" if use == "eval" else "dataset_train_split"
    name, split = getattr(arguments, setting), getattr(arguments, splits)
    if name is not None and not own:
        check_split(name, split, splits)
    if name is None:
        raise SettingError("required: a file, a folder or a name on the Hub", field=setting)
    with PartialState().main_process_first():
        rows = load_rows(name, config=arguments.dataset_config, split=split, setting=setting)
        if not len(rows):
            raise SettingError(f"{name} has no rows", field=setting)
        rows = with_named_columns(rows, arguments.columns, name)
        rows = with_prompts(
            rows,
            system=arguments.system_prompt,
            template=arguments.prompt_template,
            chat=arguments.chat,
        )
        limit = None if tokenizer is None else arguments.max_prompt_length
        kept = within_length(rows, tokenizer, limit, **template)
    left = f"; {len(rows) - len(kept)} longer prompts left out" if len(kept) < len(rows) else ""
    _say(f"{use}: {len(kept)} rows of {name} ({split}){left}")
    return kept


def checkpoint_of(training: Any) -> str | None:
    """As `named_checkpoint`; the rollouts of an attempt without a checkpoint are moved away."""
    found = named_checkpoint(training, say=_say)
    if found is None and resumes_if_it_can(training):
        _set_aside(training.rollouts_dir)
    return found


def named_checkpoint(training: Any, say: Callable[[str], None] | None = None) -> str | None:
    """The checkpoint to resume from: `true`: the last one; `auto`: the last one, if there is any.

    Args:
        training: the config.
        say: prints which checkpoints of other runs are left out; None: nothing does.

    Returns:
        Its folder; None: training starts from the beginning.

    Raises:
        SettingError: there is no such checkpoint.
    """
    wanted = training.resume_from_checkpoint
    if wanted is None or str(wanted).lower() in ("false", "none"):
        return None
    folder = Path(training.output_dir)
    if str(wanted).lower() in ("true", "auto"):
        last, others = last_checkpoint(folder)
        if others and say is not None:
            say(f"resume_from_checkpoint: of another run, left out: {', '.join(others)}")
        if last is None and str(wanted).lower() == "true":
            reason = f"no checkpoint in {folder}"
            raise SettingError(reason, field=RESUME)
        return last
    chosen = Path(wanted).expanduser()
    if not chosen.is_dir():
        raise SettingError(f"no such folder: {wanted}", field=RESUME)
    return str(chosen)


def _set_aside(folder: str | None) -> None:
    """Move the rollouts of an attempt that left no checkpoint out of the way of the next one."""
    if PartialState().is_main_process:
        moved = set_rollouts_aside(folder)
        if moved is not None:
            _say(f"rollouts_dir: the files of an attempt without a checkpoint are in {moved}")
    PartialState().wait_for_everyone()


def train_and_save(trainer: StepCreditGRPOTrainer, recipe: Recipe, resume: str | None) -> None:
    """Train, then save the model, its tokenizer, its card and the trainer's history."""
    if resume is not None:
        _say(f"resuming from {resume}")
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(recipe.training.output_dir)
    trainer.save_state()
    trainer.create_model_card(dataset_name=recipe.arguments.dataset_name)
    _say(f"{trainer.state.global_step} steps; model in {recipe.training.output_dir}")
    if recipe.training.push_to_hub:
        trainer.push_to_hub(dataset_name=recipe.arguments.dataset_name)
    trainer.accelerator.end_training()
