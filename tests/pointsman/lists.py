"""Price lists as their keepers write them, of a few models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LITELLM: dict[str, Any] = {
    "sample_spec": {"litellm_provider": "one of ...", "mode": "one of: chat, embedding"},
    "fallback_generalizations": {"rules": []},
    "gpt-long": {
        "litellm_provider": "openai",
        "mode": "chat",
        "max_input_tokens": 272000,
        "input_cost_per_token": 1.25e-07,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.3e-08,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "input_cost_per_token_priority": 9e-06,
        "input_cost_per_token_above_200k_tokens_batches": 9e-06,
        "source": "https://prices.example/openai",
        "supports_vision": True,
        "supports_function_calling": True,
        "supports_response_schema": False,
    },
    "dashscope/qwen-steps": {
        "litellm_provider": "dashscope",
        "mode": "chat",
        "tiered_pricing": [
            {"input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07, "range": [0, 256000.0]},
            {
                "input_cost_per_token": 2.5e-07,
                "output_cost_per_token": 2e-06,
                "range": [256000.0, 1e6],
            },
        ],
    },
    "openai/gpt-long": {"litellm_provider": "openai", "mode": "chat"},
    "embed-1": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08},
    "rerank-1": {
        "litellm_provider": "cohere",
        "mode": "rerank",
        "input_cost_per_token": 0.0,
        "output_cost_per_token": 0.0,
        "input_cost_per_query": 0.002,
    },
    "gone": {
        "litellm_provider": "openai",
        "mode": "chat",
        "deprecation_date": "2026-06-30",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
    },
    "painter": {"litellm_provider": "openai", "mode": "image_generation"},
    "odd": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": -1,
        "output_cost_per_token": 0,
    },
}
MODELS_DEV: dict[str, Any] = {
    "acme": {
        "id": "acme",
        "name": "Acme",
        "doc": "https://acme.example/models",
        "models": {
            "acme/large@v2": {
                "id": "acme/large@v2",
                "reasoning": True,
                "tool_call": True,
                "structured_output": False,
                "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]},
                "limit": {"context": 1000000, "output": 64000},
                "cost": {
                    "input": 5,
                    "output": 25,
                    "cache_read": 0.5,
                    "context_over_200k": {"input": 10, "output": 37.5},
                    "tiers": [
                        {"input": 10, "output": 37.5, "tier": {"size": 272000, "type": "context"}}
                    ],
                },
            },
            "small": {
                "cost": {"input": 1, "output": 2, "context_over_200k": {"input": 2, "output": 3}},
                "limit": {"context": 0},
            },
            "text-embed": {"cost": {"input": 0.1}},
            "old": {"status": "deprecated", "cost": {"input": 1, "output": 2}},
            "voice": {"modalities": {"output": ["audio"]}, "cost": {"input": 1, "output": 2}},
            "guard-8b": {"cost": {"input": 1, "output": 2}},
            "unpriced": {},
        },
    }
}


def written(folder: Path, content: Any, name: str = "list.json") -> str:
    """A file with this JSON."""
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)
