"""Attention kernels that return the log-sum-exp, and their merge, against one softmax in float64.

Two sets of keys are attended to apart and merged; the reference attends to both at once. Beside it stands the error of
torch's own attention over both sets in the same dtype: the merge should not be worse than that by much.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import report
from benchmarks.gpu.arguments import parser
from nag.attention import attention_with_lse, lse_kernel, merge_by_lse

COLUMNS = ("dtype", "channels of a head", "queries, keys", "kernel", "merged", "torch's own over all keys")
HEADS = 24
#: Image tokens and text tokens.
COUNTS = ((4096, 512), (4096, 77), (1000, 333))


def errors(dtype: torch.dtype, channels: int, counts: tuple[int, int], device: str) -> tuple[float, float]:
    """Returns the relative errors of the merged attention and of torch's own."""
    image, text = counts
    torch.manual_seed(0)

    def draw(tokens: int) -> Tensor:
        return torch.randn(1, HEADS, tokens, channels, device=device).to(dtype)

    query, keys, values = draw(image), [draw(image), draw(text)], [draw(image), draw(text)]
    parts = [attention_with_lse(query, key, value) for key, value in zip(keys, values, strict=True)]
    merged = merge_by_lse(*parts[0], *parts[1])
    key, value = torch.cat(keys, 2), torch.cat(values, 2)
    own = F.scaled_dot_product_attention(query, key, value)
    exact = _attention_in_float64(query, key, value)
    return tuple(float((out.double() - exact).norm() / exact.norm()) for out in (merged, own))  # type: ignore[return-value]


def _attention_in_float64(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Computes a head at a time: the logits of all take too much memory."""
    heads = [
        torch.softmax(one.double() @ keys.double().mT / one.shape[-1] ** 0.5, -1) @ values.double()
        for one, keys, values in zip(query[0], key[0], value[0], strict=True)
    ]
    return torch.stack(heads)[None]


def main() -> None:
    arguments = parser(__doc__).parse_args()
    kind = torch.device(arguments.device).type
    rows: list[tuple[str, ...]] = []
    data = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for channels in (64, 128):
            for image, text in COUNTS:
                counts = (image // 16, text // 4) if arguments.small else (image, text)
                kernel = lse_kernel(kind, dtype, channels)
                name = str(dtype).removeprefix("torch.")
                if kernel is None:
                    rows.append((name, str(channels), str(counts), "none", "two attention calls", ""))
                    continue
                found = errors(dtype, channels, counts, arguments.device)
                data.append({"dtype": name, "channels": channels, "counts": counts, "errors": found})
                rows.append(
                    (name, str(channels), str(counts), kernel.__name__.strip("_"), *(f"{one:.1e}" for one in found))
                )
    report.write(
        "kernels", "Relative error of attention against float64", COLUMNS, rows, data,
        report.machine(arguments.device), folder=arguments.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
