//! Progress on stderr: a bar with rate and time to go on a terminal, plain lines otherwise.

use crate::output::humanize_bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
};

/// Plain lines come at every tenth of the whole.
const LINES: u64 = 10;

/// Progress of one thing of which so many bytes are done.
pub(crate) struct Bytes {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    done: AtomicU64,
}

impl Bytes {
    /// Begins; `what` is an infinitive's stem such as `fetching`.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} to go";
            let style = ProgressStyle::with_template(template).expect("the template is right");
            ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(what)
        });
        Self { bar, what, total, done: AtomicU64::new(0) }
    }

    /// So many bytes more are done.
    pub(crate) fn add(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        self.show(before, before + bytes);
    }

    /// So many bytes in all are done.
    pub(crate) fn set(&self, bytes: u64) {
        let before = self.done.swap(bytes, Ordering::Relaxed);
        self.show(before, bytes);
    }

    fn show(&self, before: u64, after: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(after),
            None if self.line(after) > self.line(before) => say!(
                "{}: {} of {} ({}%)",
                self.what,
                humanize_bytes(after),
                humanize_bytes(self.total),
                u128::from(after) * 100 / u128::from(self.total.max(1)),
            ),
            None => {}
        }
    }

    /// How many plain lines are due at so many bytes.
    fn line(&self, bytes: u64) -> u128 {
        u128::from(bytes) * u128::from(LINES) / u128::from(self.total.max(1))
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
