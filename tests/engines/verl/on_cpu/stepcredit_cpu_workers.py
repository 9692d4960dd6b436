"""verl's actor on a CPU, and rollouts that say what their row of the data set has them say."""

from __future__ import annotations

import os
from typing import Any

import torch.distributed as dist
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker


class CPUActor(ActorRolloutRefWorker):
    """verl's own actor worker; gloo alone, where verl would ask for it twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        where = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
        super().__init__(*args, **kwargs)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def restart(self) -> None:
        """The model as it is saved, with a new optimizer."""
        self.actor.reset()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def weights(self) -> dict[str, Any]:
        """The model's weights, whole, and how many workers hold them."""
        state = self.actor.engine.module.state_dict()
        return {name: value.full_tensor().clone() for name, value in state.items()}

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def peers(self) -> int:
        return dist.get_world_size()


class ScriptedAgentLoop(AgentLoopBase):
    """Says `extra_info["responses"][session]`; from "<tool>" to after "</tool>" a tool speaks.

    At each "<cut>" an output of the session ends, and the next one begins.
    """

    async def run(
        self, sampling_params: dict[str, Any], **kwargs: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        messages = list(kwargs["raw_prompt"])
        asked = self.tokenizer.apply_chat_template(messages, tokenize=False)
        said = kwargs["extra_info"]["responses"][kwargs["session_id"]].split("<cut>")
        outputs = [self._output(asked, text) for text in said]
        return outputs if len(outputs) > 1 else outputs[0]

    def _output(self, asked: str, text: str) -> AgentLoopOutput:
        start, stop = text.find("<tool>"), text.find("</tool>\n\n") + len("</tool>\n\n")
        ids = [*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id]
        own = [int(start < 0 or not start <= place < stop) for place in range(len(ids))]
        return AgentLoopOutput(
            prompt_ids=self.tokenizer(asked)["input_ids"],
            response_ids=ids,
            response_mask=own,
            num_turns=2 if start < 0 else 4,
            metrics={},
            extra_fields={"min_global_steps": 0, "max_global_steps": 0},
        )
