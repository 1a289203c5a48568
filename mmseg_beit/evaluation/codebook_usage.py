"""How much of its codebook a tokenizer uses, and how well it is understood."""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from ..registry import METRICS


@METRICS.register_module()
class CodebookUsage(BaseMetric):
    """Usage and perplexity of the codes over a whole set of pictures, and the agreement with the teacher.

    A codebook that collapses uses few codes: the paper reports 97-100 % for a good one.

    Results are ``usage``, the share of the codes that occur in percent; ``perplexity``, 1..K, how many codes the tokens
    are spread over, counted by their evenness; and ``cosine``, the mean cosine of decoded and teacher's features.
    """

    default_prefix = 'codebook'

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Takes down a batch.

        Args:
            data_batch: Not used.
            data_samples: Per picture ``codes`` int64 tensor (N,), ``num_codes`` and ``cosine``.
        """
        for sample in data_samples:
            codes = sample['codes'].numpy().astype(np.int32)  # Half the memory: they are kept until the end.
            self.results.append((codes, sample['num_codes'], sample['cosine']))

    def compute_metrics(self, results: list[tuple[np.ndarray, int, float]]) -> dict[str, float]:
        """The figures of all pictures."""
        counts = np.bincount(np.concatenate([codes for codes, _, _ in results]), minlength=results[0][1])
        share = counts[counts > 0] / counts.sum()
        return dict(
            usage=100 * float((counts > 0).mean()),
            perplexity=float(np.exp(-(share * np.log(share)).sum())),
            cosine=float(np.mean([cosine for _, _, cosine in results])),
        )
