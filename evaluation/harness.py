"""A run as a model of lm-eval, EleutherAI's harness of tasks (Gao et al., 2021; the extra
``tasks``): ``lm_eval --model octavo --model_args run=RUN``.

Numbers are those of the harness's own models: white space that ends a context is scored with the
continuation; before each context stands the begin of the document; text longer than a row of
training loses its beginning. But where no id ends with the context, theirs are of ids that spell
another text, and ours of all ids that hold the continuation (``run.continuations``).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]

from octavo.configs.checks import ConfigError
from octavo.decoding.by_bytes import ROWS
from octavo.decoding.sampling import Sampling
from octavo.run.opened import Run, open_run

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

BATCH_SIZE = 16
"""Rows at a time, where 1 is asked for: what lm_eval asks where nobody does."""
AT_A_TIME = 4096
"""Requests between two writes to the cache of responses (``--use_cache``)."""
MOST_BYTES = 256
"""Generated where a task does not say how many."""

_SAMPLING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
             "typical_p": "typical"}  # fmt: skip
"""Of the harness's arguments of generation, those that are ours, by our names."""
_ONE_BEAM = "num_beams", 1
_MOST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class OctavoLM(LM):
    """run: a run directory, or an opened run. step: of an older checkpoint. exact: log-likelihoods
    are of bytes, by all ids that spell them, heads ways of each text at a time (``Run.costs``); no
    white space moves then. end: of rolling log-likelihoods, the end of the document is paid, as in
    a score. overlap: of windows, as in the score. seed: of what is sampled."""

    def __init__(
        self,
        run: str | Run,
        step: int | None = None,
        *,
        exact: bool = False,
        heads: int = ROWS,
        end: bool = False,
        overlap: int | None = None,
        seed: int = 0,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        **others: Any,
    ):
        super().__init__()
        if others:
            raise ConfigError(
                f"--model_args of octavo are run, step, exact, heads, end, overlap and seed, not "
                f"{', '.join(others)}."
            )
        # JAX has threads, and a process with threads must not fork for a bootstrap.
        os.environ.setdefault("DISABLE_MULTIPROC", "1")
        self.run = run if isinstance(run, Run) else open_run(str(run), step)
        self.exact, self.heads, self.end, self.seed = exact, heads, end, seed
        asked = str(batch_size if batch_size is not None else "auto").partition(":")[0]
        self.batch_size = BATCH_SIZE if asked in ("auto", "1") else int(asked)
        self._how = {"overlap": overlap, "batch_size": self.batch_size}
        self._progress = progress

    @property
    def max_length(self) -> int:
        """Ids of a row."""
        return self.run.length

    @property
    def tokenizer_name(self) -> str:
        return f"{self.run.tokenizer.name}-{self.run.tokenizer.fingerprint}"

    def get_model_info(self) -> dict:
        return {"model_num_parameters": self.run.definition.parameters, "step": self.run.step}

    def loglikelihood(
        self, requests: "list[Instance]", disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Nats of continuations behind their contexts, negative, and whether they are greedy."""

        def answer(part: list[tuple]) -> Iterable[tuple[float, bool]]:
            pairs = part if self.exact else [_moved(*args) for args in part]
            about: dict[str, Any] = {"exact": True, "heads": self.heads} if self.exact else {}
            found = self.run.costs(pairs, **about, **self._how)
            return [(-one.nats, one.greedy) for one in found]

        return self._answered("loglikelihood", requests, answer, disable_tqdm)

    def loglikelihood_rolling(
        self, requests: "list[Instance]", disable_tqdm: bool = False
    ) -> list[float]:
        """Nats of whole texts, negative, in the windows of a score."""

        def answer(part: list[tuple]) -> Iterable[float]:
            texts = [text.encode("utf-8", "surrogateescape") for (text,) in part]
            if self.exact and self.end:
                found = self.run.exact(texts, heads=self.heads, **self._how).nats
            elif self.exact:
                pairs = [("", text) for text in texts]
                costs = self.run.costs(pairs, exact=True, heads=self.heads, **self._how)
                found = [one.nats for one in costs]
            else:
                encoded = [self.run.tokenizer.encode(text) for text in texts]
                each = self.run.predictions(encoded, **self._how)
                last = None if self.end else -1
                found = [one.nats[:last].sum(dtype=np.float64) for one in each]
            return [-float(nats) for nats in found]

        return self._answered("loglikelihood_rolling", requests, answer, disable_tqdm)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        """What contexts are continued by: up to the first of the strings that stop it, or so many
        bytes; greedy, unless sampling is asked for."""
        found: list = [None] * len(requests)
        asked: list[Any] = [request.args for request in requests]
        alike: dict[str, list[int]] = {}
        for i, (_, arguments) in enumerate(asked):
            alike.setdefault(repr(arguments), []).append(i)
        for mine in alike.values():
            how, stops, most = _generation(asked[mine[0]][1])
            mine.sort(key=lambda i: -len(asked[i][0]))

            def answer(part: list[tuple], how=how, stops=stops, most=most) -> Iterable[str]:
                prompts = [context for context, _ in part]
                drawn = self.run.samples(
                    prompts, most, how, stop=stops, seed=self.seed, batch_size=self.batch_size
                )
                return [one.data.decode("utf-8", "replace") for one in drawn]

            some = [requests[i] for i in mine]
            texts = self._answered("generate_until", some, answer, disable_tqdm)
            for i, text in zip(mine, texts, strict=True):
                found[i] = text
        return found

    def _answered(
        self, kind: str, requests: "Sequence[Instance]", answer: Callable, silent: bool
    ) -> list:
        """Of each request what ``answer`` says of so many, kept for whoever asks again."""
        from tqdm import tqdm

        found: list = []
        silent |= self._progress is not None
        with tqdm(total=len(requests), desc=f"octavo: {kind}", disable=silent) as bar:
            for begin in range(0, len(requests), AT_A_TIME):
                part = [request.args for request in requests[begin : begin + AT_A_TIME]]
                for args, one in zip(part, answer(part), strict=True):
                    self.cache_hook.add_partial(kind, args, one)
                    found.append(one)
                bar.update(len(part))
                if self._progress is not None:
                    self._progress(len(found), len(requests))
        return found


def _moved(context: str, continuation: str) -> tuple[str, str]:
    """White space at the end of a context begins the continuation, as in the harness's models."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _generation(arguments: dict) -> tuple[Sampling, list[str], int]:
    """How to draw, what stops it, and the most bytes. Raises ConfigError for what is not ours to
    do."""
    left = dict(arguments)
    until = left.pop("until", None) or []
    stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
    most = next((int(left[name]) for name in _MOST if left.get(name) is not None), MOST_BYTES)
    sampled = left.pop("do_sample", None)
    asked = {ours: left.pop(name) for name, ours in _SAMPLING.items() if name in left}
    others = [
        name for name, value in left.items() if name not in _MOST and (name, value) != _ONE_BEAM
    ]
    if others:
        raise ConfigError(f"a run is not sampled by {', '.join(others)}, which a task asks for.")
    temperature = float(asked.pop("temperature", 1.0 if sampled else 0.0))
    if sampled is False or not temperature:
        return Sampling(0.0), stops, most
    try:
        return Sampling(temperature, **asked), stops, most
    except ValueError as error:
        raise ConfigError(f"the task's {error}") from error
