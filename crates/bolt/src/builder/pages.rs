//! Pages on their way to the file, one after another.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use super::error::BuildError;
use super::node::Node;
use crate::meta::Meta;
use crate::page::{FLAG_FREELIST, Header, PAGE_HEADER_BYTES, PageSize, Pgid, Txid};

/// How much is written at once: enough that the cost of a system call does not count.
const BUFFER_BYTES: usize = 1 << 20;
/// What pages are filled up with.
static ZEROS: [u8; PageSize::MAX.bytes()] = [0; PageSize::MAX.bytes()];

pub(super) struct PageWriter<W: Write + Seek> {
    out: BufWriter<W>,
    page_size: PageSize,
    next: Pgid,
}

impl<W: Write + Seek> PageWriter<W> {
    /// Begins at the start of `out`, with zeros in place of the metas.
    pub(super) fn new(mut out: W, page_size: PageSize) -> Result<PageWriter<W>, BuildError> {
        let at_start = |source| BuildError::Write { offset: 0, source };
        out.seek(SeekFrom::Start(0)).map_err(at_start)?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        for _ in 0..2 {
            out.write_all(&ZEROS[..page_size.bytes()]).map_err(at_start)?;
        }
        Ok(PageWriter { out, page_size, next: Pgid(2) })
    }

    /// Begins behind the pages that `out` has already.
    pub(super) fn behind(
        mut out: W,
        page_size: PageSize,
        next: Pgid,
    ) -> Result<PageWriter<W>, BuildError> {
        let offset = next.offset(page_size).expect("these pages are in a file");
        out.seek(SeekFrom::Start(offset)).map_err(|source| BuildError::Write { offset, source })?;
        Ok(PageWriter { out: BufWriter::with_capacity(BUFFER_BYTES, out), page_size, next })
    }

    /// The id of the next page: the number of pages so far.
    pub(super) fn next(&self) -> Pgid {
        self.next
    }

    /// Writes a node, and says which page it is.
    pub(super) fn write(&mut self, node: &mut Node) -> Result<Pgid, BuildError> {
        let pages = node.bytes().div_ceil(self.page_size.bytes());
        let (flags, count) = (node.flags(), node.count());
        let overflow = u32::try_from(pages - 1).expect("a node is far shorter than 2^32 pages");
        let header = Header { id: self.next.0, flags, count, overflow }.encode();
        let (elements, data) = node.encoded();
        self.write_pages(&[&header, elements, data])
    }

    pub(super) fn write_empty_freelist(&mut self) -> Result<Pgid, BuildError> {
        let header = Header { id: self.next.0, flags: FLAG_FREELIST, count: 0, overflow: 0 };
        self.write_pages(&[&header.encode()])
    }

    /// Writes the parts one after another and fills up the last page.
    fn write_pages(&mut self, parts: &[&[u8]]) -> Result<Pgid, BuildError> {
        let pgid = self.next;
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let filled = bytes.next_multiple_of(self.page_size.bytes());
        for part in parts {
            self.out.write_all(part).map_err(|source| self.failed(source))?;
        }
        self.out.write_all(&ZEROS[..filled - bytes]).map_err(|source| self.failed(source))?;
        self.next = Pgid(pgid.0 + (filled / self.page_size.bytes()) as u64);
        Ok(pgid)
    }

    /// Writes the metas, each to the page that its transaction id names, and returns the size of the
    /// file. The one in force is written last.
    pub(super) fn finish(&mut self, meta: &Meta) -> Result<u64, BuildError> {
        let previous = Meta { txid: Txid(meta.txid.0 - 1), ..*meta };
        self.write_metas(&[previous, *meta]).map_err(|source| self.failed(source))?;
        Ok(self.size())
    }

    fn write_metas(&mut self, metas: &[Meta]) -> io::Result<()> {
        self.out.flush()?;
        for meta in metas {
            let slot = meta.txid.0 % 2;
            self.out.seek(SeekFrom::Start(slot * self.page_size.bytes_u64()))?;
            self.out.write_all(&meta.encode(slot))?;
        }
        self.out.seek(SeekFrom::Start(self.size()))?; // seeking flushes first
        Ok(())
    }

    fn size(&self) -> u64 {
        self.next.offset(self.page_size).expect("the pages so far are in a file")
    }

    fn failed(&self, source: io::Error) -> BuildError {
        BuildError::Write { offset: self.size(), source }
    }
}

const _: () = assert!(PAGE_HEADER_BYTES <= PageSize::MIN.bytes());
