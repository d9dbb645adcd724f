"""Suite `pba`: quality and cost of the forecasts, and the allocator's sharing of links.

Cases: `accuracy/SERIES/FORECASTER`, `inference/MODEL/single|batch-N|sequence`, `train/MODEL`, `overhead/LINKS/DOMAINS`,
`sharing/...`, `fleet/LINKS/SECONDS`. docs/forecasting.md says what the series are and how to read the figures.
"""

from bench.frame import Options, Row
from bench.suites import pba_accuracy, pba_cost, pba_sharing


def rows(options: Options) -> list[Row]:
    """Measure everything.

    Raises:
        ConfigError: traces or models that cannot be read.
        NotFoundError: there are none.
    """
    return [
        *pba_accuracy.synthetic_rows(options),
        *pba_accuracy.trace_rows(options),
        *pba_cost.inference_rows(options),
        *pba_cost.overhead_rows(options),
        *pba_cost.training_rows(options),
        *pba_sharing.rows(options),
    ]
