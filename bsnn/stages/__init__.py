"""The stages of the pipeline: read artifacts, call one module, write artifacts. What a rule does, also by hand.

Every function takes a `Job` (bsnn.pipeline.job).
"""
