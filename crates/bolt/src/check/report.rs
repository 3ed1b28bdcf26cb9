//! How violations reach the visitor.

use std::ops::ControlFlow;

use super::order::Fault;
use super::walk::Walk;
use super::{Key, VIOLATIONS_PER_PAGE_MAX, Violation, Visitor};
use crate::error::ElementDefect;
use crate::page::{Page, Pgid};

/// The reports of one page.
#[derive(Default)]
pub(super) struct Reports {
    count: u64,
}

impl<'a, V: Visitor<'a>> Walk<'a, '_, V> {
    pub(super) fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        self.summary.violations += 1;
        self.visitor.violation(violation)
    }

    /// A violation of a page that can have many.
    #[cold]
    pub(super) fn page_violation(
        &mut self,
        reports: &mut Reports,
        violation: Violation,
    ) -> ControlFlow<()> {
        reports.count += 1;
        self.summary.violations += 1;
        if reports.count > VIOLATIONS_PER_PAGE_MAX {
            return ControlFlow::Continue(());
        }
        self.visitor.violation(violation)
    }

    /// Says how many violations of a page were not reported one by one.
    pub(super) fn rest_of(&mut self, pgid: Pgid, reports: &Reports) -> ControlFlow<()> {
        match reports.count.saturating_sub(VIOLATIONS_PER_PAGE_MAX) {
            0 => ControlFlow::Continue(()),
            count => self.visitor.violation(Violation::More { pgid, count }),
        }
    }

    #[cold]
    pub(super) fn element_defect(
        &mut self,
        page: &Page<'a>,
        index: usize,
        defect: ElementDefect,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let offset = self.offset(page, index);
        self.page_violation(reports, Violation::Element { pgid: page.id, index, offset, defect })
    }

    /// Reports an element whose data does not start where it should.
    pub(super) fn layout(
        &mut self,
        page: &Page<'a>,
        index: usize,
        found: usize,
        expected: Option<usize>,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        match expected {
            Some(expected) if expected != found => {
                let offset = self.offset(page, index);
                let pgid = page.id;
                let violation = Violation::Layout { pgid, index, offset, expected, found };
                self.page_violation(reports, violation)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    #[cold]
    pub(super) fn disorder(
        &mut self,
        page: &Page<'a>,
        index: usize,
        key: &'a [u8],
        fault: Fault<'a>,
        reports: &mut Reports,
    ) -> ControlFlow<()> {
        let (pgid, offset, key) = (page.id, self.offset(page, index), Key::new(key));
        let violation = match fault {
            Fault::NotAscending(previous) => {
                Violation::KeyOrder { pgid, index, offset, key, previous: Key::new(previous) }
            }
            Fault::BelowLower(separator) => Violation::BelowSeparator {
                pgid,
                index,
                offset,
                key,
                separator: Key::new(separator),
            },
            Fault::AboveUpper(separator) => Violation::AboveSeparator {
                pgid,
                index,
                offset,
                key,
                separator: Key::new(separator),
            },
        };
        self.page_violation(reports, violation)
    }

    /// Where in the file an element is.
    pub(super) fn offset(&self, page: &Page<'a>, index: usize) -> u64 {
        (page.element_address(index) - self.db.used().as_ptr().addr()) as u64
    }
}
