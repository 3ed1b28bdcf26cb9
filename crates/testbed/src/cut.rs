//! A connection that breaks half way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Stands between a client and a server without TLS, and hangs up on both after the server has sent
/// so many bytes; from then on every connection is closed at once.
#[derive(Debug)]
pub struct CutStream {
    address: SocketAddr,
    was_cut: Arc<AtomicBool>,
}

impl CutStream {
    /// A stand-in for the server at `url`, which lets `bytes` through.
    pub fn before(url: &str, bytes: u64) -> Self {
        let server = url.strip_prefix("http://").expect("only http can be cut here").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let was_cut = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicU64::new(bytes));
        let cut = Arc::clone(&was_cut);
        // The thread ends with the process: it waits for clients that may still come.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(&server).expect("the server runs");
                relay(client, server, Arc::clone(&left), Arc::clone(&cut));
            }
        });
        Self { address, was_cut }
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether the server has sent so much that the connection was cut.
    pub fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::SeqCst)
    }
}

/// Copies both ways, in two threads, until either side hangs up or nothing is left to let through.
fn relay(client: TcpStream, server: TcpStream, left: Arc<AtomicU64>, cut: Arc<AtomicBool>) {
    let double = |stream: &TcpStream| stream.try_clone().expect("a socket handle can be doubled");
    let (mut from_client, mut to_server) = (double(&client), double(&server));
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let (mut from_server, mut to_client) = (server, client);
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from_server.read(&mut buffer) {
            let bytes = u64::try_from(read).expect("a buffer's length fits 64 bits");
            let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(bytes))
            });
            if before.is_ok_and(|before| before < bytes) {
                cut.store(true, Ordering::SeqCst);
                break;
            }
            if to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = from_server.shutdown(Shutdown::Both);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
