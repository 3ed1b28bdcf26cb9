//! Ctrl-C, SIGTERM and SIGHUP (a session that was dropped): a command that writes stops at the next safe point and removes what it began.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

/// Whether the user wants the command to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Interrupt {
    /// Begins to listen. From now on the signals no longer end the process by themselves, but a second
    /// one does.
    pub(crate) fn watch() -> io::Result<Self> {
        let this = Self::default();
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut ctrl_c = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        drop(entered);
        let told = this.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                for number in 0.. {
                    tokio::select! {
                        _ = ctrl_c.recv() => {}
                        _ = term.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    if number > 0 {
                        std::process::exit(crate::report::Exit::Interrupted as i32);
                    }
                    told.requested.store(true, Ordering::Relaxed);
                    told.notify.notify_one();
                }
            });
        });
        Ok(this)
    }

    /// Whether a signal came.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Waits until one comes.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}
