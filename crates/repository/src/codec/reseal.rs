//! An object encrypted to other keys, from one path to another, without being decompressed.

use super::seal::{Opener, Sealer, read_failed};
use super::{
    Bandwidth, CodecError, End, Expected, Identities, Measured, Recipients, bridge, compare,
    not_opened,
};
use crate::manifest::Content;
use crate::store::{ObjectWriter, Store};
use bridge::Job;
use futures::StreamExt;
use std::io::{self, Read, Write};

/// Bytes decrypted at once: one piece of `age`.
const PIECE_BYTES: usize = 64 << 10;

/// What is to be encrypted anew, and how.
pub(crate) struct Resealing<'a> {
    /// The object as it is.
    pub(crate) from: &'a str,
    /// What it must turn out to be; of its content nothing is learnt.
    pub(crate) expected: Expected,
    /// The keys to open it with.
    pub(crate) identities: &'a Identities,
    /// The object that it becomes.
    pub(crate) to: &'a str,
    /// The keys to encrypt it to.
    pub(crate) recipients: &'a Recipients,
    /// A limit for what is sent.
    pub(crate) bandwidth: Option<&'a Bandwidth>,
}

/// Creates the new object; what is stored then. `progress` is called with the bytes read so far.
pub(crate) async fn reseal(
    store: &Store,
    resealing: &Resealing<'_>,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Content, CodecError> {
    let mut writer = store.writer(resealing.to).await?;
    match transfer(store, resealing, &mut *writer, progress).await {
        Ok(stored) => {
            writer.finish().await?;
            Ok(stored)
        }
        Err(error) => {
            // The first error is the one to tell, and what stays behind is listed nowhere.
            let _ = writer.abort().await;
            Err(error)
        }
    }
}

async fn transfer(
    store: &Store,
    resealing: &Resealing<'_>,
    writer: &mut dyn ObjectWriter,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Content, CodecError> {
    let stream = store.reader(resealing.from).await?;
    let (feeder, inlet) = bridge::inlet();
    let (mut outlet, drain) = bridge::outlet();
    let object = resealing.from.to_owned();
    let identities = object.ends_with(".age").then(|| resealing.identities.clone());
    let (expected, recipients) = (resealing.expected.clone(), resealing.recipients.clone());
    let job = Job::spawn(move || {
        let thread = Thread { object, expected, identities, recipients };
        let stored = thread.run(inlet, &mut outlet, progress)?;
        outlet.finish().map_err(|source| CodecError::Write { object: thread.object, source })?;
        Ok(stored)
    });
    let job = job.map_err(CodecError::Thread)?;
    let (fed, drained) =
        futures::join!(feeder.feed(stream), drain.drain(writer, resealing.bandwidth));
    drained?;
    fed?;
    job.join().await
}

struct Thread {
    object: String,
    expected: Expected,
    identities: Option<Identities>,
    recipients: Recipients,
}

impl Thread {
    fn run(
        &self,
        input: impl Read,
        output: impl Write,
        progress: impl Fn(u64),
    ) -> Result<Content, CodecError> {
        let sealed = |error| CodecError::sealed(&self.object, error);
        let mut found = Measured::new(input);
        let mut sealer = Sealer::new(&self.recipients, Measured::new(output)).map_err(sealed)?;
        {
            let mut opener = match &self.identities {
                None => Opener::plain(&mut found),
                Some(identities) => Opener::sealed(identities, &mut found).map_err(|error| {
                    not_opened(&self.object, Some(&self.expected), identities, error)
                })?,
            };
            let mut piece = vec![0; PIECE_BYTES];
            let mut done = 0;
            loop {
                let bytes = match opener.read(&mut piece) {
                    Ok(0) => break,
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(sealed(read_failed(error))),
                };
                sealer
                    .write_all(piece.get(..bytes).unwrap_or_default())
                    .map_err(|source| CodecError::Write { object: self.object.clone(), source })?;
                done += bytes as u64;
                progress(done);
            }
        }
        compare(&self.object, End::Stored, &self.expected.stored, &found.measure())?;
        sealer.finish().map_err(sealed).map(Measured::measure)
    }
}

/// Reads an object back, and proves that it is stored as it was sent. Nothing is decrypted.
pub(crate) async fn prove_stored(
    store: &Store,
    path: &str,
    expected: &Content,
) -> Result<(), CodecError> {
    let mut stream = store.reader(path).await?;
    let mut found = Measured::new(io::sink());
    while let Some(piece) = stream.next().await {
        let object = || path.to_owned();
        found
            .write_all(&piece?)
            .map_err(|source| CodecError::Write { object: object(), source })?;
    }
    compare(path, End::Stored, expected, &found.measure())
}
