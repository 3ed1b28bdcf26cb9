//! Ports of our own on loopback, also while many tests run at once and members come and go.
//!
//! Asking the kernel for port 0 and closing it again is a race: the same number may be given to the
//! next test, or to an outgoing connection, before the server binds it. So ports come from outside the
//! range that Linux gives to outgoing connections, and each is held by a lock on a file named after it.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Where ports are taken from, unless outgoing connections have some of these: Linux gives them 32768 and up.
const PORTS: Range<u16> = 20_000..32_000;

/// The fewest that many tests at once can do with.
const FEWEST: usize = 1_000;

/// A port that no other test has while this value lives.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free port.
    pub fn take() -> Self {
        let outgoing = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let ports = beside(&outgoing.unwrap_or_default());
        // Starting where the process id says keeps parallel tests from walking through each other.
        let width = u32::from(ports.end - ports.start);
        let start = std::process::id().wrapping_mul(61) % width;
        (0..width)
            .map(|step| (start + step) % width)
            .map(|offset| ports.start + u16::try_from(offset).expect("offset is below width"))
            .find_map(Self::take_number)
            .expect("thousands of ports are not all taken")
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

/// Ports that outgoing connections are not given, which are said as the kernel does: the first and the last of theirs.
fn beside(outgoing: &str) -> Range<u16> {
    let mut words = outgoing.split_whitespace().map(str::parse);
    let (Some(Ok(first)), Some(Ok(last))) = (words.next(), words.next()) else { return PORTS };
    let is_apart = |ports: &Range<u16>| ports.end <= first || last < ports.start;
    let choice = [PORTS, 10_000..first, 1_024..first, last.saturating_add(1)..u16::MAX];
    let good = |ports: &Range<u16>| ports.len() >= FEWEST && is_apart(ports);
    // If there are none, those of somebody who has left nothing to anybody.
    choice.into_iter().find(good).unwrap_or(PORTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_until_it_is_dropped() {
        let first = Port::take();
        assert!(Port::take_number(first.number).is_none());
        drop(first);
        // Another test may be quicker, but not again and again.
        let is_free_again = |_| {
            let number = Port::take().number;
            Port::take_number(number).is_some()
        };
        assert!((0..100).any(is_free_again));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let port = Port::take();
        let number = port.number;
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        drop(port);
        assert!(Port::take_number(number).is_none());
    }

    #[test]
    fn ports_of_outgoing_connections_are_left_to_them() {
        for (outgoing, ports) in [
            ("32768\t60999\n", PORTS),
            ("", PORTS),
            ("16000\t65535\n", 10_000..16_000),
            ("9000\t65535\n", 1_024..9_000),
            ("1024\t60999\n", 61_000..65_535),
            ("1024\t65535\n", PORTS),
        ] {
            assert_eq!(beside(outgoing), ports, "{outgoing:?}");
        }
    }
}
