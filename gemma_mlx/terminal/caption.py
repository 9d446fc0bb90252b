"""gemma-mlx caption: pictures and videos -> a text about each."""

from __future__ import annotations

from typing import Annotated

import typer

from gemma_mlx.errors import UsageError
from gemma_mlx.terminal import options as flag
from gemma_mlx.terminal.batch import Batch
from gemma_mlx.terminal.failures import exit_codes, show_warnings_in_one_line
from gemma_mlx.terminal.loading import load_gemma
from gemma_mlx.terminal.output import Output

_FILES_HELP = "Pictures and videos; - reads one from stdin."
_PROMPT_HELP = 'What to ask about each. Default: "Describe this image in one sentence." (or video)'


def caption(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=_FILES_HELP)],
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help=_PROMPT_HELP)] = None,
    model: flag.Model = None,
    max_tokens: flag.MaxTokens = flag.MAX_TOKENS,
    temperature: flag.Temperature = None,
    top_k: flag.TopK = None,
    top_p: flag.TopP = None,
    min_p: flag.MinP = None,
    repetition_penalty: flag.RepetitionPenalty = None,
    seed: flag.Seed = None,
    detail: flag.Detail = None,
    draft: flag.Draft = "auto",
    drafter: flag.DrafterFolder = None,
    adapter: flag.AdapterFolder = None,
    as_json: flag.Json = False,
    logprobs: flag.Logprobs = None,
    quiet: flag.Quiet = False,
) -> None:
    """Describe pictures and videos. Of several files, each line of stdout is the path, a tab and the text.

    \b
    gemma-mlx caption photo.jpg
    gemma-mlx caption --json *.png > captions.jsonl
    """
    with exit_codes(as_json):
        flag.check_flags(as_json=as_json, logprobs=logprobs)
        if prompt is not None and not prompt.strip():
            raise UsageError("--prompt is empty; write what to ask about each, or leave it out")
        drawing = flag.Drawing(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        output = Output(quiet)
        batch = Batch(files, "image", output, max_tokens, detail, as_json, bool(logprobs), named=True)
        show_warnings_in_one_line(output)
        gemma = load_gemma(model, output, drafter=drafter, draft=draft, adapter=adapter)
        sampling = drawing.sampling(gemma)
        from gemma_mlx.tasks import captioning

        batch.run(
            gemma,
            lambda media: captioning.caption(
                gemma,
                media,
                prompt,
                sampling=sampling,
                max_tokens=max_tokens,
                logprobs=logprobs or 0,
                draft=draft,
            ),
        )
