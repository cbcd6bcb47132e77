//! Resources in, plan and diagnostics out: the one place that decides what runs.
