//! A person is asked, and may press Ctrl-C at any time.

use super::show::Shown;
use crate::{
    cli::Context,
    interrupt::Interrupt,
    report::{Exit, Failure},
};
use recover::{Fleet, Journal, Plan, Run};
use std::{
    io::{self, BufRead, IsTerminal},
    sync::mpsc,
    time::Duration,
};

/// How soon a signal is noticed while a person is asked.
const SIGNAL_TICK: Duration = Duration::from_millis(100);

/// Asks for the cluster's name, to do `what`.
pub(super) fn confirm(
    plan: &Plan,
    what: &str,
    yes: bool,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let refused = |why: &str| {
        Failure::new(
            Exit::Refused,
            why,
            "type the cluster's name, or give --yes; nothing was stopped",
        )
    };
    if !io::stdin().is_terminal() {
        return Err(refused("there is no terminal to confirm it on"));
    }
    super::take_away();
    say_part!("\nTo {what}, type the cluster's name ({}): ", plan.spec.cluster);
    let typed = typed(interrupt)?;
    match typed.trim() == plan.spec.cluster {
        true => Ok(()),
        false => Err(refused("that is not the cluster's name")),
    }
}

/// Asks the hosts, before a person is asked: another machine may have taken the run over, or back, and another run may have come
/// after it. Then asks them `more`.
pub(super) fn look<T>(
    context: &Context,
    plan: &Plan,
    journal: &Journal,
    patience: Duration,
    interrupt: &Interrupt,
    more: impl AsyncFnOnce(&Run<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let shown = Shown::new(&plan.spec);
    unless_interrupted(context, interrupt, async {
        let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(patience);
        let run = Run { plan, journal, fleet: &fleet };
        run.refuse_elsewhere().await?;
        run.refuse_overtaken().await?;
        more(&run).await
    })
}

/// A line of standard input, unless a signal comes before it.
fn typed(interrupt: &Interrupt) -> Result<String, Failure> {
    let (told, typed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).map(|_| line);
        // Nobody waits for it any more after a signal.
        let _ = told.send(read);
    });
    loop {
        match typed.recv_timeout(SIGNAL_TICK) {
            Ok(line) => return Ok(line?),
            Err(_) if interrupt.requested() => {
                say!("");
                return Err(not_begun());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(String::new()),
        }
    }
}

/// A signal came before anything was done.
fn not_begun() -> Failure {
    Failure::new(
        Exit::Interrupted,
        "stopped; nothing was changed",
        "run the same command again when you are ready",
    )
}

/// The future's result, or the end by a signal.
pub(super) fn unless_interrupted<T>(
    context: &Context,
    interrupt: &Interrupt,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    context.block_on(async {
        tokio::select! {
            biased;
            () = interrupt.wait() => Err(not_begun()),
            result = future => result,
        }
    })
}
