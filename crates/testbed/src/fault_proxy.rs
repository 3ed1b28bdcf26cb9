//! A proxy between a client and an HTTP server that does to requests what networks and servers do.
//!
//! ```text
//!   client ══ one connection, many requests ══▶ proxy ── a connection for each request ──▶ server
//!                                                 │
//!                             the script: Request -> Fault, asked once for each request
//! ```
//! What passes, passes byte for byte: the `Host` header too, which S3's signatures cover. The proxy holds
//! no body in memory. A client or server that is silent for [`PATIENCE`] is given up, and dropping the
//! proxy ends every connection.

mod http;

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::{Body, Head, Limited, copy_body};

/// Longer than any client under test waits.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request, as the script sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// How many requests came before it, on all connections.
    pub number: u64,
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path and the query, as sent.
    pub target: String,
}

impl Request {
    /// Whether it is of this method and its target holds `part`.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It waits this long, then passes.
    Delay(Duration),
    /// The client's connection is reset; the server never hears of the request.
    Reset,
    /// The proxy answers with this status, as S3 words it; the server never hears of the request.
    Answer(u16),
    /// After so many bytes of its body both connections end, the client's by a reset.
    CutRequest(u64),
    /// After so many bytes of the answer's body the client's connection is reset.
    CutAnswer(u64),
    /// The server does the work; instead of the answer, the client's connection is reset.
    LoseAnswer,
    /// No answer at all, until the client gives up; the server never hears of the request.
    Stall,
    /// After so many bytes of the answer's body nothing more comes, until the client gives up.
    StallAnswer(u64),
}

type Script = dyn Fn(&Request) -> Fault + Send + Sync;

/// The proxy; its connections end with it.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: String,
    script: Box<Script>,
    stopped: AtomicBool,
    seen: Mutex<Vec<(Request, Fault)>>,
    /// Clients' connections, to end them when the proxy ends.
    clients: Mutex<HashMap<u64, TcpStream>>,
}

impl FaultProxy {
    /// Stands before the server at `url`, which must be `http://`; `script` decides.
    pub fn before(url: &str, script: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, url, script)
    }

    /// The same at another address of this machine, as [`Hosts::gateway`](crate::Hosts::gateway).
    pub fn at(
        address: Ipv4Addr,
        url: &str,
        script: impl Fn(&Request) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let server = url.strip_prefix("http://").expect("only http can be looked into").to_owned();
        let listener = TcpListener::bind((address, 0)).expect("the address has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            server,
            script: Box::new(script),
            stopped: AtomicBool::new(false),
            seen: Mutex::default(),
            clients: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Does something to one request in `one_in`; which, and what, follows from `seed`.
    pub fn seeded(url: &str, seed: u64, one_in: u64) -> Self {
        Self::before(url, move |request| by_chance(mix(seed ^ mix(request.number)), one_in))
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came so far, and what was done to each.
    pub fn seen(&self) -> Vec<(Request, Fault)> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests came so far.
    pub fn requests(&self) -> usize {
        lock(&self.shared.seen).len()
    }

    /// To how many of them something was done.
    pub fn faults(&self) -> usize {
        lock(&self.shared.seen).iter().filter(|(_, fault)| *fault != Fault::Pass).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for client in lock(&self.shared.clients).values() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

impl std::fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A script that panics fails its own connection; what others have seen stays good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spreads the bits of a number (splitmix64's finish).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stalls are left out: a run of many seeds would wait for its client's patience again and again.
fn by_chance(random: u64, one_in: u64) -> Fault {
    if !random.is_multiple_of(one_in) {
        return Fault::Pass;
    }
    let random = mix(random);
    let bytes = (random >> 8) % 70_000;
    match random % 8 {
        0 => Fault::Delay(Duration::from_millis(bytes % 300)),
        1 => Fault::Reset,
        2 => Fault::Answer(500),
        3 => Fault::Answer(503),
        4 => Fault::Answer(403),
        5 => Fault::CutRequest(bytes),
        6 => Fault::CutAnswer(bytes),
        _ => Fault::LoseAnswer,
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, client) in (0u64..).zip(listener.incoming()) {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let Ok(handle) = client.try_clone() else { continue };
        lock(&shared.clients).insert(number, handle);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A connection that fails is what this proxy is for; the client tells the test.
            let _ = serve(&client, &shared);
            // The last handle goes with this closure, and the connection with it.
            lock(&shared.clients).remove(&number);
        });
    }
}

/// What becomes of the client's connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    KeepOpen,
    Close,
    Reset,
}

fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    while let Some(head) = Head::read(&mut reader)? {
        let fault = shared.decide(&head);
        let after = exchange(&head, fault, &mut reader, client, &shared.server);
        match after.unwrap_or(After::Reset) {
            After::KeepOpen => {}
            After::Close => return Ok(()),
            After::Reset => return reset(client),
        }
    }
    Ok(())
}

impl Shared {
    fn decide(&self, head: &Head) -> Fault {
        let (method, target) = head.method_and_target();
        let mut seen = lock(&self.seen);
        let number = u64::try_from(seen.len()).expect("a count fits 64 bits");
        let request = Request { number, method, target };
        let fault = (self.script)(&request);
        seen.push((request, fault));
        fault
    }
}

/// Closing with a lingering time of zero sends RST instead of FIN, unless FIN was sent by a shutdown.
fn reset(stream: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Ok(())
}

fn exchange(
    head: &Head,
    fault: Fault,
    reader: &mut BufReader<&TcpStream>,
    client: &TcpStream,
    server: &str,
) -> io::Result<After> {
    let mut limits = Limits::default();
    match fault {
        Fault::Pass => {}
        // A slow network, not a wait for something: nothing here depends on how long it takes.
        Fault::Delay(time) => thread::sleep(time),
        Fault::Reset => return Ok(After::Reset),
        Fault::Answer(status) => return answer(head, status, reader, client),
        Fault::CutRequest(bytes) => limits.request = bytes,
        Fault::CutAnswer(bytes) => limits.answer = bytes,
        Fault::LoseAnswer => return lose_answer(head, reader, server),
        Fault::Stall => return stall(client),
        Fault::StallAnswer(bytes) => limits.answer = bytes,
    }
    let after = forward(head, reader, client, server, limits);
    match (fault, after) {
        (Fault::StallAnswer(_), Ok(After::Reset) | Err(_)) => stall(client),
        (_, after) => after,
    }
}

/// How much of the bodies passes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    request: u64,
    answer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: u64::MAX, answer: u64::MAX }
    }
}

/// Sends the request on and the answer back. The request's body goes its way in a thread of its own: a
/// server may answer before it has all of it, be it "100 Continue" or a refusal.
fn forward(
    head: &Head,
    reader: &mut BufReader<&TcpStream>,
    client: &TcpStream,
    server: &str,
    limits: Limits,
) -> io::Result<After> {
    let server = &connect(server)?;
    (&*server).write_all(head.bytes())?;
    thread::scope(|scope| {
        let upload = scope.spawn(|| {
            let sent = copy_body(reader, &mut Limited::new(server, limits.request), head.body());
            if sent.is_err() && limits.request < u64::MAX {
                // The server sees the request end in the middle, and the answer's side wakes up.
                let _ = server.shutdown(Shutdown::Both);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            sent.or_else(|_| drain(reader))
        });
        let after = answer_back(head, server, client, limits.answer);
        if after.is_err() || matches!(after, Ok(After::Reset)) {
            // Nobody waits for the rest of the request any more.
            let _ = client.shutdown(Shutdown::Read);
        }
        let upload = upload.join().expect("copying does not panic");
        upload.and(after)
    })
}

/// The rest of a body that the server did not want. It ends when the client closes, which it must do
/// unless it sends all; what a client sent beyond the body would be lost, but no client pipelines.
fn drain(reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
    io::copy(reader, &mut io::sink()).map(drop)
}

fn answer_back(
    request: &Head,
    server: &TcpStream,
    mut client: &TcpStream,
    limit: u64,
) -> io::Result<After> {
    let mut reader = BufReader::new(server);
    loop {
        let head = Head::read(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        client.write_all(head.bytes())?;
        if head.is_interim() {
            continue;
        }
        let body = head.answer_body(request);
        copy_body(&mut reader, &mut Limited::new(client, limit), body)?;
        let closes = body == Body::UntilClose || head.closes() || request.closes();
        return Ok(if closes { After::Close } else { After::KeepOpen });
    }
}

fn connect(server: &str) -> io::Result<TcpStream> {
    let server = TcpStream::connect(server)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.set_nodelay(true)?;
    Ok(server)
}

fn lose_answer(head: &Head, reader: &mut BufReader<&TcpStream>, server: &str) -> io::Result<After> {
    let mut server = connect(server)?;
    server.write_all(&head.without_expectation())?;
    copy_body(reader, &mut server, head.body())?;
    let mut answer = BufReader::new(server);
    let answered = Head::read(&mut answer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    copy_body(&mut answer, &mut io::sink(), answered.answer_body(head))?;
    Ok(After::Reset)
}

/// Answers in the server's place. The body is read first: a client that is still sending would see a
/// reset, which is another fault.
fn answer(
    head: &Head,
    status: u16,
    reader: &mut BufReader<&TcpStream>,
    mut client: &TcpStream,
) -> io::Result<After> {
    if head.expects_continue() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    copy_body(reader, &mut io::sink(), head.body())?;
    let code = match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        412 => "PreconditionFailed",
        503 => "SlowDown",
        _ => "InternalError",
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>the fault proxy says so</Message></Error>"
    );
    let length = body.len();
    let is_head = head.method_and_target().0 == "HEAD";
    let body = if is_head { "" } else { &body };
    write!(
        client,
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    Ok(After::KeepOpen)
}

/// Holds the connection until the client gives up.
fn stall(mut client: &TcpStream) -> io::Result<After> {
    let mut ignored = [0; 4096];
    while client.read(&mut ignored)? > 0 {}
    Ok(After::Close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_follows_from_the_seed_and_knows_every_fault() {
        let faults = |seed: u64| -> Vec<Fault> {
            (0..400).map(|number| by_chance(mix(seed ^ mix(number)), 4)).collect()
        };
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
        let passed = faults(1).iter().filter(|fault| **fault == Fault::Pass).count();
        assert!((250..350).contains(&passed), "three in four pass, not {passed} of 400");
        for wanted in [Fault::Reset, Fault::Answer(500), Fault::LoseAnswer] {
            assert!(faults(1).contains(&wanted), "{wanted:?}");
        }
    }
}
