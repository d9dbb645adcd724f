"""Series of samples and model weights on disk.

Modules:
    model_files: files of forecasting models
    series: one schema of all that is measured
    series_store: series on disk
"""
