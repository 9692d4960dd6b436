"""The published heads of reward models, run only at the positions where steps are read.

Heads compute in float32 whatever the body's type: they are small, and most scores of a reward model
are probabilities near 0 or 1.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from stepcredit.signals.models.batching import reads_left_to_right
from stepcredit.signals.models.causal import eval_mode


class TwoLayerHead(nn.Module):
    """Qwen2.5-Math-PRM's head, named as in its checkpoints: `score.0.weight`, `score.2.bias`, ...

        logits = Linear(ReLU(Linear(h)))

    Args:
        width: the body's hidden size.

    Example:
        >>> import torch
        >>> TwoLayerHead(8)(torch.zeros(3, 8)).shape
        torch.Size([3, 2])
        >>> list(TwoLayerHead(8).state_dict())
        ['score.0.weight', 'score.0.bias', 'score.2.weight', 'score.2.bias']
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, hidden: Tensor) -> Tensor:
        """Two logits for each row of `hidden`."""
        logits: Tensor = self.score(hidden)
        return logits


class ValueHead(nn.Module):
    """Skywork-o1-Open-PRM's head, named as in its checkpoints: `v_head.summary.weight`, `.bias`.

        value = Linear(h)

    Args:
        width: the body's hidden size.

    Example:
        >>> import torch
        >>> ValueHead(8)(torch.zeros(3, 8)).shape
        torch.Size([3, 1])
        >>> list(ValueHead(8).state_dict())
        ['v_head.summary.weight', 'v_head.summary.bias']
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.v_head = nn.ModuleDict({"summary": nn.Linear(width, 1)})

    def forward(self, hidden: Tensor) -> Tensor:
        """One value for each row of `hidden`."""
        value: Tensor = self.v_head["summary"](hidden)
        return value


class WordHead(nn.Module):
    """A few rows of a language model's output layer, which give the logits of some words only.

    Args:
        output: the language model's output layer.
        words: token ids, i.e. rows of the layer, one per class.

    Example:
        >>> import torch
        >>> WordHead(nn.Linear(8, 100), [7, 3])(torch.zeros(3, 8)).shape
        torch.Size([3, 2])
    """

    def __init__(self, output: Any, words: list[int]) -> None:
        super().__init__()
        bias = getattr(output, "bias", None)
        self.register_buffer("weight", output.weight.detach()[words].clone())
        self.register_buffer("bias", None if bias is None else bias.detach()[words].clone())

    def forward(self, hidden: Tensor) -> Tensor:
        """The words' logits for each row of `hidden`."""
        return nn.functional.linear(hidden, self.weight, self.bias)  # type: ignore[arg-type]


class HeadedModel(nn.Module):
    """A body and a head; the head runs only at the positions where steps are read.

    Args:
        body: a transformers model without a head, as `AutoModel` loads it.
        head: one of this module's heads.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head.float()

    @property
    def config(self) -> Any:
        """The body's configuration."""
        return self.body.config

    @property
    def num_tokens(self) -> int:
        """Number of token ids that the model knows."""
        return len(self.body.get_input_embeddings().weight)  # type: ignore[operator]

    @cached_property
    def needs_mask(self) -> bool:
        """Whether the body would read padding on the right without a mask."""
        return _needs_mask(self.body, self.num_tokens)

    def forward(self, ids: Tensor, mask: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """The head's logits at (rows, positions).

        Args:
            ids: (batch, length), padded on the right.
            mask: (batch, length), 1 where there is a token.
            rows: which response each step belongs to.
            positions: the position in it at which each step is read.

        Returns:
            (steps, classes), float32.
        """
        seen = mask if self.needs_mask else None
        output = self.body(input_ids=ids, attention_mask=seen, use_cache=False)
        logits: Tensor = self.head(output.last_hidden_state[rows, positions].float())
        return logits


class Classifier(nn.Module):
    """A token classifier of transformers with its own head; two logits per token cost very little.

    Args:
        model: a model as `AutoModelForTokenClassification` loads it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def num_tokens(self) -> int:
        """Number of token ids that the model knows."""
        return len(self.model.get_input_embeddings().weight)  # type: ignore[operator]

    @cached_property
    def needs_mask(self) -> bool:
        """Whether the model would read padding on the right without a mask."""
        return _needs_mask(self.model, self.num_tokens)

    def forward(self, ids: Tensor, mask: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """The classifier's logits at (rows, positions), as in `HeadedModel.forward`."""
        output = self.model(input_ids=ids, attention_mask=mask if self.needs_mask else None)
        logits: Tensor = output.logits[rows, positions]
        return logits.float()


def _needs_mask(model: nn.Module, num_tokens: int) -> bool:
    """Whether a model's first output would change with tokens that come later."""
    device = next(model.parameters()).device

    def states(ids: Tensor) -> Tensor:
        found: Tensor = model(input_ids=ids.to(device))[0]
        return found

    with eval_mode(model):
        return not reads_left_to_right(states, num_tokens)
