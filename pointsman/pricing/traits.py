"""Who made a model, and how large it is, as far as its name tells."""

from __future__ import annotations

import re

_MAKERS = {
    "ai21": "jamba",
    "amazon": "nova|titan",
    "anthropic": "claude",
    "cohere": "command|c4ai|aya|rerank-v",
    "deepseek": "deepseek",
    "google": "gemini|gemma|palm",
    "ibm": "granite",
    "meta": "llama|muse",
    "microsoft": "phi",
    "minimax": "minimax|abab",
    "mistral": "mistral|mixtral|ministral|codestral|devstral|magistral|pixtral|voxtral",
    "moonshotai": "kimi|moonshot",
    "nvidia": "nemotron",
    "openai": r"gpt|chatgpt|davinci|o[1-9]|text-embedding-(?:3|ada)",
    "perplexity": "sonar",
    "qwen": "qwen|qwq|qvq",
    "x-ai": "grok",
    "xiaomi": "mimo",
    "zai": "glm|chatglm",
}
_MAKER = re.compile(
    r"(?<![a-z])(?:" + "|".join(f"(?P<{m.replace('-', '_')}>{w})" for m, w in _MAKERS.items()) + ")"
)
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])")


def maker(model: str) -> str | None:
    """Whose family a model's name tells, the first where it tells two; else what stands before it,
    as in `baidu/ernie`.

    >>> maker("@cf/meta/llama-3.3-70b"), maker("gpt-oss-120b"), maker("baidu/ernie"), maker("ada")
    ('meta', 'openai', 'baidu', None)
    """
    name = model.lower()
    found = _MAKER.search(name)
    if found is not None and found.lastgroup is not None:
        return found.lastgroup.replace("_", "-")
    owner = name.split("/")[-2].strip("@~") if "/" in name else ""
    return owner if owner not in ("", "models") else None


def parameters_b(model: str) -> float | None:
    """Billions of parameters; of a mixture of experts all of them.

    >>> parameters_b("llama-3.3-70b"), parameters_b("mixtral-8x7b"), parameters_b("qwen3-30b-a3b")
    (70.0, 56.0, 30.0)
    """
    found = _SIZE.search(model.lower())
    return None if found is None else float(found[1] or 1) * float(found[2])
