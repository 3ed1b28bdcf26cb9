//! What turns a file into its next version: pages behind those it has, and two metas.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use crate::db::Db;

/// How much is written at once.
const PIECE_BYTES: usize = 4 << 20;

/// Changes to a file, held in memory until they are made. What [`Builder::amend`](super::Builder::amend) writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Bytes of the file that stay.
    kept: u64,
    /// What comes behind them.
    tail: Vec<u8>,
    /// What is written over them, and where: the metas.
    over: Vec<(u64, Vec<u8>)>,
    /// Where the next write goes.
    at: u64,
}

impl Patch {
    /// No change yet to the file that `db` is in.
    pub fn of(db: &Db<'_>) -> Patch {
        Patch { kept: db.size(), tail: Vec::new(), over: Vec::new(), at: 0 }
    }

    /// Bytes of the changed file.
    pub fn size(&self) -> u64 {
        self.kept + self.tail.len() as u64
    }

    /// Writes the changed file elsewhere, to the start of `out`. `db` is the one that was amended; `on_bytes` is told
    /// of bytes as they are written, and may end it.
    pub fn write<W: Write + Seek>(
        &self,
        db: &Db<'_>,
        mut out: W,
        on_bytes: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> io::Result<()> {
        assert_eq!(self.kept, db.size(), "the patch is of another file");
        for piece in db.used().chunks(PIECE_BYTES).chain([&self.tail[..]]) {
            out.write_all(piece)?;
            if on_bytes(piece.len() as u64).is_break() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        for (at, bytes) in &self.over {
            out.seek(SeekFrom::Start(*at))?;
            out.write_all(bytes)?;
        }
        out.seek(SeekFrom::Start(self.size()))?;
        out.flush()
    }

    /// Makes the changes in a file that has the bytes that stay, and cuts off what it has beyond them. The metas are
    /// written when all else is on the disk. `file` must not be mapped any more.
    pub fn apply(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.tail, self.kept)?;
        file.set_len(self.size())?;
        file.sync_data()?;
        self.over.iter().try_for_each(|(at, bytes)| file.write_all_at(bytes, *at))
    }
}

impl Write for Patch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.at.checked_sub(self.size()) {
            Some(0) => self.tail.extend_from_slice(bytes),
            None if self.at < self.kept => self.over.push((self.at, bytes.to_vec())),
            _ => return Err(io::Error::other("the builder writes its pages one after another")),
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Patch {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
