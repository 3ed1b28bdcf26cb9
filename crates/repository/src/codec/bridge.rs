//! Between a store, which is asynchronous, and the codec, which blocks on threads of its own.
//!
//! ```text
//!   store ──Feeder──▶ Inlet: Read ──▶ thread ──▶ Outlet: Write ──Drain──▶ store
//! ```
//!
//! * At most [`PIECES_MAX`] pieces wait in either direction.
//! * When either side of a channel is gone, the other learns of it at its next read, write or send. A
//!   dropped future thereby ends its thread, unless that waits for something else.
//! * An input ends only where its end was said: a sender that is dropped before makes an error.

use crate::store::{ObjectWriter, StoreError};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use std::io::{self, Read, Write};
use std::{panic, thread};
use tokio::sync::{mpsc, oneshot};

use super::Bandwidth;

/// Bytes are handed over in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

/// How many pieces may wait.
const PIECES_MAX: usize = 4;

/// A channel into a thread.
pub(crate) fn inlet() -> (Feeder, Inlet) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    (Feeder { sender }, Inlet { receiver, piece: Bytes::new(), is_over: false })
}

/// A channel out of a thread.
pub(crate) fn outlet() -> (Outlet, Drain) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    (Outlet { sender, piece: BytesMut::new() }, Drain { receiver })
}

/// The store's end of an [`Inlet`].
pub(crate) struct Feeder {
    sender: mpsc::Sender<Option<Bytes>>,
}

impl Feeder {
    /// Hands on a whole object; its size, if there was a reader until its end.
    pub(crate) async fn feed(
        self,
        mut object: BoxStream<'static, Result<Bytes, StoreError>>,
    ) -> Result<Option<u64>, StoreError> {
        let mut fed = 0;
        while let Some(piece) = object.next().await {
            let piece = piece?;
            fed += piece.len() as u64;
            if self.sender.send(Some(piece)).await.is_err() {
                return Ok(None);
            }
        }
        Ok(self.sender.send(None).await.ok().map(|()| fed))
    }
}

/// What comes from a store, in a thread.
pub(crate) struct Inlet {
    receiver: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    is_over: bool,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.is_over {
            match self.receiver.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.is_over = true,
                None => return Err(gone()),
            }
        }
        let bytes = buffer.len().min(self.piece.len());
        let taken = self.piece.split_to(bytes);
        if let Some(buffer) = buffer.get_mut(..bytes) {
            buffer.copy_from_slice(&taken);
        }
        Ok(bytes)
    }
}

/// What goes to a store, in a thread.
pub(crate) struct Outlet {
    sender: mpsc::Sender<Bytes>,
    piece: BytesMut,
}

impl Outlet {
    /// Hands over what is left. An outlet that is dropped instead leaves that out.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece).freeze();
        self.sender.blocking_send(piece).map_err(|_| gone())
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES);
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the transfer was given up")
}

/// The store's end of an [`Outlet`].
pub(crate) struct Drain {
    receiver: mpsc::Receiver<Bytes>,
}

impl Drain {
    /// Writes all that comes, until the thread drops its outlet.
    pub(crate) async fn drain(
        mut self,
        writer: &mut dyn ObjectWriter,
        bandwidth: Option<&Bandwidth>,
    ) -> Result<(), StoreError> {
        while let Some(piece) = self.receiver.recv().await {
            if let Some(bandwidth) = bandwidth {
                bandwidth.take(piece.len()).await;
            }
            writer.write(piece).await?;
        }
        Ok(())
    }
}

/// A thread and what it will have to say.
pub(crate) struct Job<T> {
    thread: thread::JoinHandle<()>,
    result: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Job<T> {
    /// Begins it. It is not stopped when this is dropped, but by the ends of its channels.
    pub(crate) fn spawn(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, result) = oneshot::channel();
        let thread = thread::Builder::new().name("codec".to_owned()).spawn(move || {
            // If nobody waits, nobody needs it.
            let _ = sender.send(work());
        })?;
        Ok(Self { thread, result })
    }

    /// Waits for it. A panic of the thread goes on here.
    pub(crate) async fn join(self) -> T {
        match self.result.await {
            Ok(result) => result,
            Err(_) => match self.thread.join() {
                Err(panic) => panic::resume_unwind(panic),
                Ok(()) => panic!("a thread ends with a result or a panic"),
            },
        }
    }
}
