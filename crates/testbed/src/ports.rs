//! Ports of our own on loopback, also while many tests run at once and members come and go.
//!
//! Asking the kernel for port 0 and closing it again is a race: the same number may be given to the
//! next test, or to an outgoing connection, before the server binds it. So ports come from below the
//! range that Linux gives to outgoing connections, and each is held by a lock on a file named after it.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};

/// Linux gives outgoing connections 32768 and up.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that no other test has while this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free port.
    pub(crate) fn take() -> Self {
        // Starting where the process id says keeps parallel tests from walking through each other.
        let width = u32::from(PORTS.end - PORTS.start);
        let start = std::process::id().wrapping_mul(61) % width;
        (0..width)
            .map(|step| (start + step) % width)
            .map(|offset| PORTS.start + u16::try_from(offset).expect("offset is below width"))
            .find_map(Self::take_number)
            .expect("twelve thousand ports are not all taken")
    }

    fn take_number(number: u16) -> Option<Self> {
        let folder = std::env::temp_dir().join("lifeboat-testbed-ports");
        std::fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(folder.join(number.to_string()))
            .expect("a lock file can be opened");
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(error)) => panic!("cannot lock port {number}: {error}"),
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_until_it_is_dropped() {
        let first = Port::take();
        assert!(Port::take_number(first.number).is_none());
        let number = first.number;
        drop(first);
        assert!(Port::take_number(number).is_some());
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let port = Port::take();
        let number = port.number;
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        drop(port);
        assert!(Port::take_number(number).is_none());
    }
}
