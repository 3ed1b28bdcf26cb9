//! The order of keys in a page, and between the separators around it.

/// Where keys of a page must lie: `lower` is the separator that leads to it, `upper` the next one.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) lower: Option<&'a [u8]>,
    pub(super) upper: Option<&'a [u8]>,
}

impl Bounds<'_> {
    pub(super) const NONE: Bounds<'static> = Bounds { lower: None, upper: None };
}

/// What is asked of the next key.
pub(super) struct Order<'a> {
    pub(super) bounds: Bounds<'a>,
    /// The greatest key so far.
    pub(super) last: Option<&'a [u8]>,
}

/// Why a key is not where it may be.
pub(super) enum Fault<'a> {
    NotAscending(&'a [u8]),
    BelowLower(&'a [u8]),
    AboveUpper(&'a [u8]),
}

impl<'a> Order<'a> {
    /// Takes a key that is in order. One that is not is left out, so that it does not make all that
    /// follow look wrong.
    #[inline]
    pub(super) fn admit(&mut self, key: &'a [u8]) -> Result<(), Fault<'a>> {
        if let Some(lower) = self.bounds.lower
            && key < lower
        {
            return Err(Fault::BelowLower(lower));
        }
        if let Some(last) = self.last
            && key <= last
        {
            return Err(Fault::NotAscending(last));
        }
        if let Some(upper) = self.bounds.upper
            && key >= upper
        {
            return Err(Fault::AboveUpper(upper));
        }
        self.bounds.lower = None; // what ascends from here is above it
        self.last = Some(key);
        Ok(())
    }
}
