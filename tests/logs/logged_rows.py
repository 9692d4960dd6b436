"""Rows as trainers log them."""

from __future__ import annotations

from typing import Any


def verl(question: str, text: str, score: Any, **more: Any) -> dict[str, Any]:
    asked = f"user\n{question}\nassistant\n"
    return {"input": asked, "output": text, "gts": "7", "score": score, "step": 3} | more


def as_asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def as_said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
