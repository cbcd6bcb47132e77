//! Progress on long work: a bar on a terminal once it takes longer than a second, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const QUIET: Duration = Duration::from_secs(1);

/// A bar over `length` steps; without one, a counter.
pub(super) fn bar(length: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = match length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    };
    let template =
        if length.is_some() { "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}" } else { "{msg} {human_pos} {per_sec}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.set_draw_target(ProgressDrawTarget::hidden());
    bar
}

/// Moves a bar on, and shows it when the work has taken long enough to be worth it.
pub(super) fn advance(bar: &ProgressBar, steps: u64) {
    if bar.is_hidden() && bar.elapsed() > QUIET {
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    }
    bar.inc(steps);
}
