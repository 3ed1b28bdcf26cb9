//! A file as bytes: the one module with `unsafe`.
//!
//! * Pages come in when they are touched, which on a cold file means one small read after another, in
//!   the order of the tree. [`Mapped::prefetch`] has the kernel read what is missing in the order of the
//!   file, while the walk begins; on most disks that is several times faster.
//! * A mapped file can be taken away under its reader: if it shrinks, or if its disk fails, the next
//!   touch of a lost page is a SIGBUS, which by default kills the process without a word. There is no
//!   going on from it, but a reason can be given: the first [`Mapped`] installs a handler that writes
//!   one line to stderr and exits with code 1.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Once;

use rustix::fs::Advice;

/// How much is looked at, and asked for if it is missing, at once. A multiple of every OS page size, and
/// large enough that a disk reads at full speed.
const WINDOW_BYTES: usize = 1 << 20;
/// Pages of the smallest OS page size in a window.
const WINDOW_PAGES_MAX: usize = WINDOW_BYTES / 4096;

/// A file mapped into memory, read-only.
///
/// The file must not be written to as long as it is mapped: map files that are finished, or that are
/// locked against writers.
pub struct Mapped {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<memmap2::Mmap>,
    file: File,
}

impl Mapped {
    /// Maps the whole of `file`.
    #[expect(unsafe_code, reason = "this is the module that maps files")]
    pub fn open(file: &File) -> io::Result<Mapped> {
        install_sigbus_handler()?;
        let file = file.try_clone()?;
        if file.metadata()?.len() == 0 {
            return Ok(Mapped { map: None, file });
        }
        // SAFETY: callers map finished or locked files (see the type), so the bytes behind the slice do
        // not change. If the file shrinks all the same, touching what is gone ends the process.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Mapped { map: Some(map), file })
    }

    /// Whether the whole file is in the page cache, so that reading it in any order is fast.
    pub fn is_resident(&self) -> io::Result<bool> {
        for window in self.windows() {
            if !window_is_resident(window)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks the kernel to bring the file into the page cache, in the order of the file, and does not wait
    /// for it: a walk can begin at once. What is there already is left alone. Returns the number of bytes
    /// that were asked for.
    pub fn prefetch(&self) -> io::Result<u64> {
        let (mut offset, mut missing) = (0, 0);
        for window in self.windows() {
            let len = window.len() as u64;
            if !window_is_resident(window)? {
                rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(len), Advice::WillNeed)?;
                missing += len;
            }
            offset += len;
        }
        Ok(missing)
    }

    fn windows(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks(WINDOW_BYTES)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapped").field("len", &self.len()).field("file", &self.file).finish()
    }
}

/// Whether a part of a mapping, which starts at a multiple of the OS page size, is in the page cache.
#[expect(unsafe_code, reason = "no crate in use wraps mincore")]
fn window_is_resident(window: &[u8]) -> io::Result<bool> {
    let mut pages = [0u8; WINDOW_PAGES_MAX];
    assert!(window.len() <= WINDOW_BYTES, "a window of {} bytes", window.len());
    // SAFETY: the range is mapped as long as the slice lives; the kernel writes one byte per OS page of
    // it, and OS pages are not smaller than 4096 bytes, so that they fit into `pages`. The memory
    // itself is not touched.
    let result = unsafe {
        libc::mincore(window.as_ptr().cast_mut().cast(), window.len(), pages.as_mut_ptr().cast())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let pages_in_window = window.len().div_ceil(rustix::param::page_size());
    Ok(pages[..pages_in_window].iter().all(|page| page & 1 == 1))
}

/// Installs [`on_sigbus`], the first time it is called.
#[expect(unsafe_code, reason = "signal handlers are installed with raw system calls")]
fn install_sigbus_handler() -> io::Result<()> {
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid one (no flags, empty mask), and the handler has the
        // signature that SA_SIGINFO asks for.
        let status = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut())
        };
        if status != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}

/// What the handler says; one write, so that lines of other threads do not get into it.
const SIGBUS_MESSAGE: &str = "error: a mapped file could not be read: it shrank or its disk failed while \
it was in use\nhelp: check the disk and the kernel log, and that nothing writes to the file, then try again\n";

/// Ends the process with a reason. Calls nothing but what is safe in a signal handler.
#[expect(unsafe_code, reason = "a signal handler works with raw system calls")]
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *const libc::siginfo_t,
    _context: *const libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO. signal, raise,
    // write and _exit are async-signal-safe, and the message is a constant.
    unsafe {
        let code = (*info).si_code;
        if code != libc::BUS_ADRERR && code != libc::BUS_MCEERR_AR {
            // Sent by someone, or not about a file: as if there were no handler.
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
            return;
        }
        libc::write(libc::STDERR_FILENO, SIGBUS_MESSAGE.as_ptr().cast(), SIGBUS_MESSAGE.len());
        libc::_exit(1);
    }
}
