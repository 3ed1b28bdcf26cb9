//! `lifeboat volume`: what the operator's restore Jobs run in their pods.

use crate::{
    cli::Context,
    interrupt::Interrupt,
    output,
    report::{Exit, Failure},
};
use operator::{
    files::Files,
    volume::{Answer, Order, Place, State, VolumeError, build, probe},
};
use repository::{codec::Identities, store::Store};
use std::path::{Path, PathBuf};

/// Do one step of a restore on the volume that is mounted here
///
/// For the operator's Jobs. Each step may be repeated, and goes on where one that was killed has ended.
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeArgs {
    /// What to do
    #[arg(value_enum)]
    step: Step,

    /// The order, as JSON
    order: String,

    /// The file that gets the answer too, if it is there: where Kubernetes looks for a pod's last words
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    termination_log: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Step {
    /// Look whether all is there that building takes, but the volume
    Probe,
    /// Build new data beside the old
    Build,
    /// Put the new data in place
    Swap,
    /// Put the old data back
    Undo,
    /// Say how far the volume has come
    Status,
}

impl VolumeArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let order: Order = serde_json::from_str(&self.order).map_err(|error| {
            let message = format!("that is no order: {error}");
            Failure::new(Exit::Usage, message, "this command is for the operator's Jobs")
        })?;
        let interrupt = Interrupt::watch()?;
        let done = match self.step {
            Step::Probe => probed(&order, context, &interrupt),
            Step::Build => built(&order, context, &interrupt),
            Step::Swap => at_place(&order, Place::swap),
            Step::Undo => at_place(&order, Place::undo),
            Step::Status => at_place(&order, Place::state),
        };
        let failed = |error: &VolumeError| {
            Failure::caused(Exit::Failed, "the step failed", error, error.remedy().to_owned())
        };
        let (answer, result) = match done {
            Ok(answer) => (answer, Ok(())),
            Err(error) => (Answer::failed(&error), Err(failed(&error))),
        };
        let line = output::json(&answer);
        tell(&self.termination_log, &line);
        output::print(&line)?;
        result
    }
}

/// A pod's last words. Where nobody waits for them, nothing is made.
fn tell(log: &Path, line: &str) {
    if log.exists()
        && let Err(error) = std::fs::write(log, line)
    {
        say!("warning: {}: {error}", log.display());
    }
}

fn at_place(
    order: &Order,
    step: impl FnOnce(&Place) -> Result<State, VolumeError>,
) -> Result<Answer, VolumeError> {
    let place = order.place().ok_or(VolumeError::Incomplete("a member"))?;
    Ok(Answer { state: Some(step(&place)?), ..Answer::default() })
}

fn built(order: &Order, context: &Context, interrupt: &Interrupt) -> Result<Answer, VolumeError> {
    let stop = || interrupt.requested();
    with_store(order, context, interrupt, async |store, identities| {
        let (state, built) = build(order, store, &identities, &stop).await?;
        Ok(Answer { state: Some(state), built, ..Answer::default() })
    })
}

fn probed(order: &Order, context: &Context, interrupt: &Interrupt) -> Result<Answer, VolumeError> {
    with_store(order, context, interrupt, async |store, _| {
        probe(order, store).await.map(|()| Answer::default())
    })
}

/// Does something with the order's store, unless it is interrupted.
fn with_store(
    order: &Order,
    context: &Context,
    interrupt: &Interrupt,
    work: impl AsyncFnOnce(Store, Identities) -> Result<Answer, VolumeError>,
) -> Result<Answer, VolumeError> {
    let spool = std::env::temp_dir();
    let files = Files::default();
    let io = |source| VolumeError::Io { action: "write to", path: spool.clone(), source };
    let access = order.store.as_ref().ok_or(VolumeError::Incomplete("a store"))?;
    let (store, identities) = access.open(&files)?;
    let work = async {
        tokio::select! {
            biased;
            () = interrupt.wait() => Err(Failure::interrupted()),
            done = work(store, identities) => Ok(done),
        }
    };
    match context.block_on(work) {
        Ok(done) => done,
        Err(failure) => Err(io(std::io::Error::other(failure.to_string()))),
    }
}
