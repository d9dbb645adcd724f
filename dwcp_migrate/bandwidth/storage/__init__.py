"""Series of samples and model weights on disk.

Modules:
    model_files: files of forecasting models
    series: schema of all measured series
    series_store: series on disk
"""
