//! The proxy does what its script says to a real server's requests, and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testbed::{Fault, FaultProxy, Identity, Rclone, Request};

/// A second client that talks to the store through the proxy; signatures cover the proxy's address.
fn curl(proxy: &FaultProxy, method: &str, key: &str, body: Option<&[u8]>) -> (u16, Vec<u8>) {
    let answer = testbed::signed_request(
        &proxy.url(),
        Identity::Admin,
        method,
        &format!("backups/{key}"),
        body,
    );
    (answer.status, answer.body)
}

#[test]
fn what_passes_passes_whole_and_signed() {
    let store = Rclone::start();
    let proxy = FaultProxy::before(store.endpoint(), |_| Fault::Pass);
    // More than a megabyte: curl sends `Expect: 100-continue`.
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(curl(&proxy, "PUT", "a", Some(&content)).0, 200);
    assert_eq!(curl(&proxy, "GET", "a", None), (200, content));
    assert_eq!(curl(&proxy, "DELETE", "a", None).0, 204);
    assert_eq!(curl(&proxy, "GET", "a", None).0, 404);
    assert_eq!((proxy.requests(), proxy.faults()), (4, 0));
    assert!(proxy.seen()[2].0.is("DELETE", "/a"));
}

#[test]
fn one_connection_carries_many_requests() {
    let store = Rclone::start();
    let proxy = FaultProxy::before(store.endpoint(), |_| Fault::Pass);
    let mut connection = TcpStream::connect(proxy.url().strip_prefix("http://").unwrap()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = b"GET /backups/x HTTP/1.1\r\nHost: somebody\r\n\r\n";
    for _ in 0..3 {
        connection.write_all(request).unwrap();
        let mut start = [0; 12];
        connection.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 400", "an unsigned request is refused");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let (_, length) = head.split_once("content-length: ").expect("the answer has a length");
        let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
        connection.read_exact(&mut body).unwrap();
    }
    assert_eq!(proxy.requests(), 3);
}

#[test]
fn the_server_hears_only_of_what_reaches_it() {
    let store = Rclone::start();
    let body: &[u8] = &[5; 200_000];
    for (fault, status, arrives) in [
        (Fault::Reset, 0, false),
        (Fault::Answer(503), 503, false),
        (Fault::Answer(403), 403, false),
        (Fault::CutRequest(100_000), 0, false),
        (Fault::LoseAnswer, 0, true),
        (Fault::Delay(Duration::from_millis(20)), 200, true),
    ] {
        let proxy = FaultProxy::before(store.endpoint(), move |_| fault);
        assert_eq!(curl(&proxy, "PUT", "object", Some(body)).0, status, "{fault:?}");
        let there = std::fs::read(store.bucket().join("object")).is_ok_and(|is| is == body);
        assert_eq!(there, arrives, "{fault:?}");
        let _ = std::fs::remove_file(store.bucket().join("object"));
        assert_eq!(proxy.faults(), 1);
    }
}

#[test]
fn a_reset_is_a_reset_and_no_polite_end() {
    let store = Rclone::start();
    let proxy = FaultProxy::before(store.endpoint(), |_| Fault::Reset);
    let mut connection = TcpStream::connect(proxy.url().strip_prefix("http://").unwrap()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n").unwrap();
    let error = connection.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn an_answer_is_cut_where_the_script_says() {
    let store = Rclone::start();
    std::fs::write(store.bucket().join("object"), vec![9; 500_000]).unwrap();
    let proxy = FaultProxy::before(store.endpoint(), |_| Fault::CutAnswer(70_000));
    let (status, body) = curl(&proxy, "GET", "object", None);
    // curl counts a broken body as no answer, and keeps what came. A reset may overtake some of it.
    assert_eq!(status, 0);
    assert!(body.len() <= 70_000, "{} bytes came", body.len());
}

#[test]
fn a_stalled_client_is_let_go_when_the_proxy_ends() {
    let store = Rclone::start();
    std::fs::write(store.bucket().join("object"), b"content").unwrap();
    for fault in [Fault::Stall, Fault::StallAnswer(3)] {
        let proxy = FaultProxy::before(store.endpoint(), move |_| fault);
        let url = proxy.url();
        let client = std::thread::spawn(move || {
            testbed::signed_request(&url, Identity::Admin, "GET", "backups/object", None).status
        });
        while proxy.requests() == 0 {
            std::thread::yield_now();
        }
        drop(proxy);
        assert_eq!(client.join().unwrap(), 0, "{fault:?}");
    }
}

#[test]
fn a_script_picks_its_requests() {
    let store = Rclone::start();
    let manifests = AtomicUsize::new(0);
    let script = move |request: &Request| {
        let first = request.is("PUT", "manifest") && manifests.fetch_add(1, Ordering::SeqCst) == 0;
        if first { Fault::Answer(500) } else { Fault::Pass }
    };
    let proxy = FaultProxy::before(store.endpoint(), script);
    assert_eq!(curl(&proxy, "PUT", "db", Some(b"1")).0, 200);
    assert_eq!(curl(&proxy, "PUT", "manifest", Some(b"2")).0, 500);
    assert_eq!(curl(&proxy, "PUT", "manifest", Some(b"2")).0, 200);
    assert_eq!(store.list(""), ["db", "manifest"]);
}
