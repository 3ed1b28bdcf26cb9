//! What a person sees while hosts are worked on: a table that is alive on a terminal, plain lines otherwise.

use crate::output::humanize_bytes;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use recover::{Event, Watcher, spec::Spec};
use std::{
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// How often the signs of life move.
const TICK: Duration = Duration::from_millis(120);

/// What is on the screen now: it must neither overwrite what else is printed there, nor be written over.
static ON_SCREEN: Mutex<Weak<State>> = Mutex::new(Weak::new());

/// Prints above the table, if there is one.
pub(crate) fn above<T>(print: impl FnOnce() -> T) -> T {
    match on_screen().as_deref() {
        Some(State { table: Some(table), .. }) => table.all.suspend(print),
        _ => print(),
    }
}

/// Takes the table away, if there is one: what it told of has ended, or somebody is asked.
pub(crate) fn take_away() {
    if let Some(state) = on_screen() {
        Shown(state).clear();
    }
}

fn on_screen() -> Option<Arc<State>> {
    ON_SCREEN.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
}

/// Shows events on stderr.
#[derive(Clone)]
pub(super) struct Shown(Arc<State>);

struct State {
    table: Option<Table>,
    /// The tenth that was told last, by host: plain lines come at every quarter.
    told: Mutex<Vec<(String, u64)>>,
}

struct Table {
    all: MultiProgress,
    title: ProgressBar,
    hosts: Vec<(String, ProgressBar)>,
}

impl Shown {
    pub(super) fn new(spec: &Spec) -> Self {
        take_away();
        let table = std::io::stderr().is_terminal().then(|| Table::new(spec));
        let state = Arc::new(State { table, told: Mutex::default() });
        *ON_SCREEN.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&state);
        Self(state)
    }

    pub(super) fn watcher(&self) -> Watcher {
        let state = Arc::clone(&self.0);
        Arc::new(move |event| match &state.table {
            Some(table) => table.show(&event),
            None => state.line(event),
        })
    }

    /// Takes the table away.
    pub(super) fn clear(&self) {
        if let Some(table) = &self.0.table {
            table.clear();
        }
    }
}

impl State {
    fn line(&self, event: Event) {
        match event {
            Event::Step { number, of, title } => say!("[{number}/{of}] {title}"),
            Event::CatchingUp { label, index, of } => say!("  {label}: has entry {index} of {of}"),
            Event::Done { label, already: false } => say!("  {label}: done"),
            Event::Done { label, already: true } => say!("  {label}: was done before"),
            Event::Waiting { label, why } => say!("  {label}: {why}"),
            Event::Again { label, why, left } => {
                say!("  {label}: {}; {}", of_host(&label, &why), trying_again(left));
            }
            Event::Failed { label } => say!("  {label}: FAILED"),
            Event::LeftAlone { label, why } => {
                say!("  {label}: left alone: {}", of_host(&label, &why));
            }
            Event::Sent { label, bytes, of } => {
                let part = bytes.saturating_mul(4) / of.max(1);
                let mut told = self.told.lock().expect("no holder of the lock panics");
                let before = told.iter_mut().find(|(known, _)| *known == label);
                let is_new = match before {
                    Some((_, before)) if *before >= part => false,
                    Some((_, before)) => {
                        *before = part;
                        true
                    }
                    None => {
                        told.push((label.clone(), part));
                        part > 0
                    }
                };
                // Small files are there before anything could be told.
                if is_new && of > 1 << 20 {
                    say!("  {label}: {} of {}", humanize_bytes(bytes), humanize_bytes(of));
                }
            }
            _ => {}
        }
    }
}

/// What went wrong on a host, in a line that names the host already.
fn of_host<'w>(label: &str, why: &'w str) -> &'w str {
    why.strip_prefix(label).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(why)
}

/// That it is tried again, and until when.
fn trying_again(left: Option<Duration>) -> String {
    match left {
        None => "trying again".to_owned(),
        // The next try may be the last one.
        Some(left) => format!("trying again for up to {} s (--patience)", left.as_secs().max(1)),
    }
}

impl Table {
    fn new(spec: &Spec) -> Self {
        let style =
            |template| ProgressStyle::with_template(template).expect("the template is right");
        let all = MultiProgress::new();
        let title = all.add(ProgressBar::new(0).with_style(style("{msg}")));
        let hosts = spec.resolved().into_iter().map(|host| {
            let bar =
                all.add(ProgressBar::new(0).with_style(style("  {spinner} {prefix:<16} {msg}")));
            bar.set_prefix(host.label.clone());
            (host.label, bar)
        });
        let hosts = hosts.collect();
        Self { all, title, hosts }
    }

    fn clear(&self) {
        self.hosts.iter().for_each(|(_, bar)| bar.finish_and_clear());
        self.title.finish_and_clear();
    }

    fn show(&self, event: &Event) {
        match event {
            Event::Step { number, of, title } => {
                self.title.set_message(format!("[{number}/{of}] {title}"));
                self.hosts.iter().for_each(|(_, bar)| bar.set_message(""));
            }
            Event::Begun { label } => self.on(label, |bar| {
                bar.enable_steady_tick(TICK);
                bar.set_message("…");
            }),
            Event::Sent { label, bytes, of } => self.on(label, |bar| {
                bar.set_message(format!("{} of {}", humanize_bytes(*bytes), humanize_bytes(*of)));
            }),
            Event::CatchingUp { label, index, of } => self.on(label, |bar| {
                bar.set_message(format!("has entry {index} of {of}"));
            }),
            Event::Done { label, already } => self.on(label, |bar| {
                bar.disable_steady_tick();
                bar.set_message(if *already { "was done before" } else { "done" });
            }),
            Event::Waiting { label, why } => self.on(label, |bar| bar.set_message(why.clone())),
            Event::Again { label, why, left } => self.on(label, |bar| {
                bar.set_message(format!("{}; {}", trying_again(*left), of_host(label, why)));
            }),
            Event::Failed { label } => self.on(label, |bar| {
                bar.disable_steady_tick();
                bar.set_message("FAILED");
            }),
            Event::LeftAlone { label, why } => self.on(label, |bar| {
                bar.disable_steady_tick();
                bar.set_message(format!("left alone: {}", of_host(label, why)));
            }),
            _ => {}
        }
    }

    fn on(&self, label: &str, change: impl Fn(&ProgressBar)) {
        if let Some((_, bar)) = self.hosts.iter().find(|(known, _)| known == label) {
            change(bar);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_host_once() {
        assert_eq!(of_host("m3", "m3: no answer for 60 s"), "no answer for 60 s");
        assert_eq!(of_host("m3", "m31: no answer"), "m31: no answer");
    }
}
