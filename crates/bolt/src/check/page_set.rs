//! A set of page ids: one bit for each page of the file.

use crate::page::Pgid;

const WORD_BITS: u64 = u64::BITS as u64;

pub(super) struct PageSet {
    words: Vec<u64>,
    count: u64,
}

impl PageSet {
    /// An empty set for the pages below `hwm`. A file of that many pages exists, so this is small
    /// beside it.
    pub(super) fn new(hwm: Pgid) -> PageSet {
        let words = usize::try_from(hwm.0.div_ceil(WORD_BITS))
            .expect("the file is in memory, and this is far less");
        PageSet { words: vec![0; words], count: 0 }
    }

    pub(super) fn contains(&self, pgid: Pgid) -> bool {
        let (word, bit) = place(pgid);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds `count` pages from `first` on, and returns the first of them that was in the set already.
    /// Pages past the high water mark are not kept.
    pub(super) fn insert(&mut self, first: Pgid, count: u64) -> Option<Pgid> {
        let mut twice = None;
        for pgid in (first.0..first.0.saturating_add(count)).map(Pgid) {
            let (word, bit) = place(pgid);
            let Some(word) = self.words.get_mut(word) else { break };
            if *word & bit != 0 {
                twice = twice.or(Some(pgid));
            } else {
                *word |= bit;
                self.count += 1;
            }
        }
        twice
    }

    /// How many pages are in the set.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// The word and the bit of a page; a page whose word is no usize is in no file.
fn place(pgid: Pgid) -> (usize, u64) {
    let word = usize::try_from(pgid.0 / WORD_BITS).unwrap_or(usize::MAX);
    (word, 1 << (pgid.0 % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_added_twice_is_named_and_the_others_are_kept() {
        let mut set = PageSet::new(Pgid(200));
        assert_eq!(set.insert(Pgid(70), 1), None);
        assert_eq!(set.insert(Pgid(60), 20), Some(Pgid(70)));
        assert_eq!(set.count(), 20);
        assert!(set.contains(Pgid(60)) && set.contains(Pgid(79)));
        assert!(!set.contains(Pgid(59)) && !set.contains(Pgid(80)));
    }

    #[test]
    fn pages_past_the_end_are_in_no_set() {
        let mut set = PageSet::new(Pgid(64));
        assert_eq!(set.insert(Pgid(u64::MAX - 1), u64::MAX), None);
        assert!(!set.contains(Pgid(u64::MAX)) && !set.contains(Pgid(64)));
        assert_eq!(set.count(), 0);
    }
}
