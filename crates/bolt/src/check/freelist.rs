//! The stored freelist: it and the pages that the tree reaches are all pages, and have none in common.

use std::ops::ControlFlow;

use super::page_set::PageSet;
use super::report::Reports;
use super::walk::Walk;
use super::{Violation, Visitor};
use crate::db::Db;
use crate::error::PageDefect;
use crate::page::{Extent, FLAG_FREELIST, PAGE_HEADER_BYTES, Pgid};

impl<'a, V: Visitor<'a>> Walk<'a, '_, V> {
    /// The stored freelist, against the pages that the tree reaches.
    pub(super) fn freelist(&mut self, pgid: Pgid) -> ControlFlow<()> {
        let ids = match free_ids(&self.db, pgid) {
            Ok((pages, ids)) => {
                if let Some(pgid) = self.reached.insert(pgid, pages) {
                    self.violation(Violation::ReachedTwice { pgid, parent: Pgid(0) })?;
                }
                ids
            }
            Err(defect) => return self.violation(Violation::Freelist { pgid, defect }),
        };
        let hwm = self.db.high_water_mark();
        let mut free = PageSet::new(hwm);
        let mut reports = Reports::default();
        for id in ids {
            let id = Pgid(u64::from_le_bytes(*id));
            let violation = if id.0 < 2 || id >= hwm {
                Violation::FreeOutOfRange { freelist: pgid, pgid: id, hwm }
            } else if free.insert(id, 1).is_some() {
                Violation::FreeTwice { freelist: pgid, pgid: id }
            } else if self.reached.contains(id) {
                Violation::FreeButUsed { freelist: pgid, pgid: id }
            } else {
                continue;
            };
            self.page_violation(&mut reports, violation)?;
        }
        self.unaccounted(&free, pgid, &mut reports)?;
        self.rest_of(pgid, &reports)
    }

    /// Runs of pages that are neither used nor free.
    fn unaccounted(
        &mut self,
        free: &PageSet,
        freelist: Pgid,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let hwm = self.db.high_water_mark().0;
        let mut first = None;
        for pgid in (2..=hwm).map(Pgid) {
            let lost = pgid.0 < hwm && !self.reached.contains(pgid) && !free.contains(pgid);
            match (first, lost) {
                (None, true) => first = Some(pgid),
                (Some(run), false) => {
                    let last = Pgid(pgid.0 - 1);
                    self.page_violation(
                        reports,
                        Violation::Unaccounted { freelist, first: run, last },
                    )?;
                    first = None;
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}

/// How many pages the freelist takes, and the page ids in it.
///
/// ```text
///   | page header, count = n       | n ids, u64 each        |
///   | page header, count = 0xFFFF  | n as u64 | n ids       |
/// ```
fn free_ids<'a>(db: &Db<'a>, pgid: Pgid) -> Result<(u64, &'a [[u8; 8]]), PageDefect> {
    let Extent { header, bytes } = Extent::read(db.used(), db.page_size(), pgid)?;
    if header.flags != FLAG_FREELIST {
        return Err(PageDefect::Flags { found: header.flags });
    }
    let too_many = PageDefect::Count { count: header.count };
    let (words, _) = bytes[PAGE_HEADER_BYTES..].as_chunks();
    let ids = if header.count == u16::MAX {
        let (count, ids) = words.split_first().ok_or(too_many)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok();
        count.and_then(|count| ids.get(..count))
    } else {
        words.get(..usize::from(header.count))
    };
    Ok((u64::from(header.overflow) + 1, ids.ok_or(too_many)?))
}
