//! The builder: sorted pairs in, a bbolt file out, in one sequential pass.
//!
//! ```text
//!   page 0, 1   leaf leaf leaf branch leaf leaf ... branch (root of the bucket)   root leaf   freelist
//!   written                 each page as it is full,                              at the end  if asked
//!   last                    a branch as soon as its children are there                        for
//! ```
//!
//! * Memory is one open page for each level of the tree, whatever the size of the file. Only a page with
//!   a large value is larger than a page.
//! * Until [`Builder::finish`] has written the metas, the file is not a bbolt file, so one that was cut
//!   short cannot be taken for a whole one.
//! * Nothing is synced: that, and the directory, is up to the caller.
//! * The same calls give the same bytes.
//! * A file can be [amended](Builder::amend): new pages go behind those it has, and buckets that are kept are not
//!   written again. The [`Patch`] that this makes is small, and is applied when all of it is there.

mod error;
mod node;
mod pages;
mod patch;
mod tree;

use std::io::{Seek, Write};

pub use error::BuildError;
pub use patch::Patch;

use crate::bucket::Bucket;
use crate::check::Key;
use crate::db::Db;
use crate::meta::Meta;
use crate::page::{
    BUCKET_HEADER_BYTES, BucketHeader, ELEMENT_BUCKET, KEY_BYTES_MAX, PageSize, Pgid, Txid,
    VALUE_BYTES_MAX,
};
use pages::PageWriter;
use tree::Tree;

/// How deep buckets may lie in one another: so deep that a tree for each of them stays within
/// [`DEPTH_MAX`](crate::DEPTH_MAX) pages. etcd nests none.
pub const NESTED_BUCKETS_MAX: usize = 32;

/// How a file is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size of all pages. bbolt opens no file of less than 4096 bytes, which a nearly empty one with
    /// pages of 512 or 1024 bytes is.
    pub page_size: PageSize,
    /// How full a page gets before the next one is begun, from 1 to 100. Less than 100 leaves room for
    /// later writes between the keys.
    pub fill_percent: u8,
    /// Whether a freelist is stored.
    pub freelist: Freelist,
    /// The transaction id of the meta in force; at least 1. The other meta has one less.
    pub txid: Txid,
    /// Which buckets lie in the element that names them.
    pub inline: Inline,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            page_size: PageSize::DEFAULT,
            fill_percent: 100,
            freelist: Freelist::None,
            txid: Txid(1),
            inline: Inline::LikeBbolt,
        }
    }
}

/// Whether a freelist is stored. A built file has no free page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freelist {
    /// None, as etcd on Linux has it; bbolt finds the free pages when it opens the file.
    None,
    /// An empty one.
    Empty,
}

/// Which buckets are inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    /// Those that bbolt would write so: at most a quarter of a page, and no buckets inside.
    LikeBbolt,
    /// No bucket.
    Never,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// The meta in force.
    pub meta: Meta,
    /// Bytes of the file.
    pub size: u64,
    /// Buckets in it, nested ones included.
    pub buckets: u64,
    /// Pairs in all buckets.
    pub pairs: u64,
}

impl Built {
    /// Pages of the file.
    pub fn pages(&self) -> u64 {
        self.meta.high_water_mark.0
    }
}

/// Builds a bbolt file.
///
/// ```
/// use std::io::Cursor;
///
/// let mut file = Cursor::new(Vec::new());
/// let mut builder = bolt::Builder::new(&mut file, bolt::Options::default())?;
/// builder.begin_bucket(b"fruit")?;
/// builder.put(b"apple", b"green")?;
/// builder.put(b"cherry", b"red")?;
/// builder.end_bucket()?;
/// builder.finish()?;
///
/// let bytes = file.into_inner();
/// let db = bolt::Db::open(&bytes)?;
/// let fruit = db.bucket(b"fruit")?.expect("it was put there");
/// assert_eq!(fruit.get(b"apple")?, Some(&b"green"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder<W: Write + Seek> {
    pages: PageWriter<W>,
    options: Options,
    /// The root bucket, which holds the buckets.
    root: Tree,
    /// The buckets that have begun and not ended, from the outside in.
    open: Vec<OpenBucket>,
    buckets: u64,
    pairs: u64,
    /// Whether a write failed: then the file has a hole, and is not finished. Set before each write, and
    /// taken back when it has succeeded.
    broken: bool,
}

struct OpenBucket {
    name: Vec<u8>,
    sequence: u64,
    tree: Tree,
}

impl<W: Write + Seek> Builder<W> {
    /// Begins a file at the start of `out`. What `out` has beyond the built file stays there.
    pub fn new(out: W, options: Options) -> Result<Builder<W>, BuildError> {
        if !(1..=100).contains(&options.fill_percent) {
            return Err(BuildError::FillPercent { found: options.fill_percent });
        }
        if options.txid.0 == 0 {
            return Err(BuildError::Txid);
        }
        let pages = PageWriter::new(out, options.page_size)?;
        Ok(Builder::on(pages, options))
    }

    /// Begins a new version of `db` on its pages, which stay where they are; `out` takes what is written behind
    /// them, and the metas. Buckets that are neither kept nor built are gone, and no freelist is stored.
    pub fn amend(out: W, db: &Db<'_>) -> Result<Builder<W>, BuildError> {
        let page_size = db.page_size();
        // Two more, so that neither meta of the old version has the number of a new one.
        let txid = Txid(db.meta().txid.0.checked_add(2).ok_or(BuildError::Txid)?);
        let options = Options { page_size, txid, ..Options::default() };
        let pages = PageWriter::behind(out, page_size, db.high_water_mark())?;
        Ok(Builder::on(pages, options))
    }

    fn on(pages: PageWriter<W>, options: Options) -> Builder<W> {
        let root = Tree::new(options.page_size, options.fill_percent);
        Builder { pages, options, root, open: Vec::new(), buckets: 0, pairs: 0, broken: false }
    }

    /// Takes over a bucket of the file that is amended, with all that is in it.
    pub fn keep(&mut self, bucket: &Bucket<'_>) -> Result<(), BuildError> {
        check_key(self.innermost(), bucket.name())?;
        if std::mem::replace(&mut self.broken, true) {
            return Err(BuildError::Broken);
        }
        let outer = self.open.last_mut().map_or(&mut self.root, |bucket| &mut bucket.tree);
        outer.put(&mut self.pages, ELEMENT_BUCKET, bucket.name(), &[bucket.value()])?;
        self.broken = false;
        self.buckets += 1;
        Ok(())
    }

    /// Begins a bucket that has what `bucket` of the file that is amended has; what is put into it comes after that.
    /// Only the pages at the right edge of its tree are written again.
    pub fn begin_after(&mut self, bucket: &Bucket<'_>) -> Result<(), BuildError> {
        self.begin_bucket(bucket.name())?;
        let edge = bucket.right_edge().and_then(|edge| {
            Tree::continued(self.options.page_size, self.options.fill_percent, &edge)
        });
        let open = self.open.last_mut().expect("it has just begun");
        open.sequence = bucket.sequence();
        open.tree = edge.inspect_err(|_| self.broken = true)?;
        Ok(())
    }

    /// Begins a bucket, in the bucket that is open or else in the file. Names and keys of one bucket
    /// must come in strictly ascending order.
    pub fn begin_bucket(&mut self, name: &[u8]) -> Result<(), BuildError> {
        check_key(self.innermost(), name)?;
        if self.open.len() == NESTED_BUCKETS_MAX {
            return Err(BuildError::NestedTooDeep);
        }
        let tree = Tree::new(self.options.page_size, self.options.fill_percent);
        self.open.push(OpenBucket { name: name.to_vec(), sequence: 0, tree });
        Ok(())
    }

    /// Sets the sequence number of the open bucket; it is 0 otherwise.
    pub fn set_sequence(&mut self, sequence: u64) -> Result<(), BuildError> {
        self.open.last_mut().ok_or(BuildError::NoBucket)?.sequence = sequence;
        Ok(())
    }

    /// Adds a pair to the open bucket.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BuildError> {
        let tree = &mut self.open.last_mut().ok_or(BuildError::NoBucket)?.tree;
        check_key(tree, key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(BuildError::ValueTooLong { key: Key::new(key), len: value.len() });
        }
        if std::mem::replace(&mut self.broken, true) {
            return Err(BuildError::Broken);
        }
        tree.put(&mut self.pages, 0, key, &[value])?;
        self.broken = false;
        self.pairs += 1;
        Ok(())
    }

    /// Ends the open bucket.
    pub fn end_bucket(&mut self) -> Result<(), BuildError> {
        let OpenBucket { name, sequence, mut tree } =
            self.open.pop().ok_or(BuildError::NoBucket)?;
        if std::mem::replace(&mut self.broken, true) {
            return Err(BuildError::Broken);
        }
        let inline_max = match self.options.inline {
            Inline::LikeBbolt => self.options.page_size.bytes() / 4,
            Inline::Never => 0,
        };
        let (root, image) = match tree.inline_image(inline_max) {
            Some(image) => (Pgid(0), image),
            None => (tree.finish(&mut self.pages)?, Vec::new()),
        };
        let header: [u8; BUCKET_HEADER_BYTES] = BucketHeader::encode(root, sequence);
        let outer = self.open.last_mut().map_or(&mut self.root, |bucket| &mut bucket.tree);
        outer.put(&mut self.pages, ELEMENT_BUCKET, &name, &[&header, &image])?;
        self.broken = false;
        self.buckets += 1;
        Ok(())
    }

    /// Writes what is still open, and the metas last. `out` is left at the end of the file.
    pub fn finish(mut self) -> Result<Built, BuildError> {
        if self.broken {
            return Err(BuildError::Broken);
        }
        if let Some(bucket) = self.open.last() {
            return Err(BuildError::BucketOpen { name: Key::new(&bucket.name) });
        }
        let root = self.root.finish(&mut self.pages)?;
        let freelist = match self.options.freelist {
            Freelist::None => None,
            Freelist::Empty => Some(self.pages.write_empty_freelist()?),
        };
        let meta = Meta {
            page_size: self.options.page_size,
            root,
            sequence: 0,
            freelist,
            high_water_mark: self.pages.next(),
            txid: self.options.txid,
        };
        let size = self.pages.finish(&meta)?;
        Ok(Built { meta, size, buckets: self.buckets, pairs: self.pairs })
    }

    fn innermost(&self) -> &Tree {
        self.open.last().map_or(&self.root, |bucket| &bucket.tree)
    }
}

/// Whether a key may follow those of a tree.
#[inline]
fn check_key(tree: &Tree, key: &[u8]) -> Result<(), BuildError> {
    if key.is_empty() {
        return Err(BuildError::EmptyKey);
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(BuildError::KeyTooLong { key: Key::new(key), len: key.len() });
    }
    if key <= tree.last_key() {
        let (key, previous) = (Key::new(key), Key::new(tree.last_key()));
        return Err(BuildError::KeyOrder { key, previous });
    }
    Ok(())
}
