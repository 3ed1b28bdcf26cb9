//! First the rules alone, then a whole stream.
//!
//! The streams come from a server that is made up here, because a real etcd cannot be made to read
//! its file wrongly or to stop in the middle. What real ones send is tested with real ones.

use std::future::pending;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

use super::*;
use crate::{ConnectOptions, Connector};

fn blob(len: usize) -> Vec<u8> {
    vec![7; len]
}

#[test]
fn the_first_message_tells_the_size_of_the_whole() {
    let mut progress = Progress::of_first(200, &blob(100)).unwrap();
    assert_eq!(progress.total, 300);
    assert_eq!(progress.take(200, blob(100)), Ok(SnapshotPart::Data(blob(100))));
    assert_eq!(progress.received(), 100);
}

#[test]
fn after_the_last_byte_comes_the_digest_though_nothing_remains() {
    let mut progress = Progress::of_first(0, &blob(100)).unwrap();
    progress.take(0, blob(100)).unwrap();
    assert_eq!(progress.take(0, vec![9; DIGEST_LEN]), Ok(SnapshotPart::Digest([9; DIGEST_LEN])));
}

#[test]
fn an_empty_blob_before_the_end_is_a_server_that_cannot_read_its_file() {
    let mut progress = Progress::of_first(200, &blob(100)).unwrap();
    progress.take(200, blob(100)).unwrap();
    assert_eq!(progress.take(200, vec![]), Err(StreamFault::NotFalling { remaining: 200 }));
}

#[test]
fn remaining_bytes_must_fall_by_what_was_sent() {
    for (blob_len, after) in [(100, 99), (100, 101), (100, 200), (300, 0)] {
        let mut progress = Progress::of_first(200, &blob(100)).unwrap();
        progress.take(200, blob(100)).unwrap();
        let fault = progress.take(after, blob(blob_len)).unwrap_err();
        assert!(matches!(fault, StreamFault::WrongCount { before: 200, .. }), "{fault}");
    }
}

#[test]
fn a_size_past_all_bounds_is_refused() {
    let fault = Progress::of_first(u64::MAX, &blob(1)).unwrap_err();
    assert!(matches!(fault, StreamFault::WrongCount { .. }), "{fault}");
}

#[test]
fn a_last_message_of_another_length_is_not_a_digest() {
    let mut progress = Progress::of_first(0, &blob(100)).unwrap();
    progress.take(0, blob(100)).unwrap();
    assert_eq!(progress.take(0, blob(31)), Err(StreamFault::WrongDigest { len: 31 }));
}

/// What the made-up server does once it has sent its messages.
#[derive(Clone)]
enum Then {
    End,
    FallSilent,
    /// When told to.
    DropTheConnection(Arc<Notify>),
}

/// Serves one snapshot and says where.
async fn serve(messages: Vec<(u64, Vec<u8>)>, then: Then) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        answer(socket, messages, then).await;
    });
    address.to_string().parse().unwrap()
}

async fn answer(socket: TcpStream, messages: Vec<(u64, Vec<u8>)>, then: Then) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let (_request, response) = connection.accept().await.unwrap().unwrap();
    // The connection moves only while it is asked for the next request.
    tokio::select! {
        () = send(response, messages, &then) => {}
        () = async { while connection.accept().await.is_some() {} } => {}
    }
    if matches!(then, Then::End) {
        while connection.accept().await.is_some() {}
    }
}

async fn send(mut response: SendResponse<Bytes>, messages: Vec<(u64, Vec<u8>)>, then: &Then) {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = response.send_response(head, false).unwrap();
    for (remaining, blob) in messages {
        stream.send_data(frame(remaining, &blob), false).unwrap();
    }
    match then {
        Then::End => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
        }
        Then::FallSilent => pending().await,
        Then::DropTheConnection(told) => told.notified().await,
    }
}

/// gRPC's frame around `SnapshotResponse { remaining_bytes = 2, blob = 3 }`.
fn frame(remaining: u64, blob: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(2 << 3);
    put_varint(&mut message, remaining);
    message.put_u8(3 << 3 | 2);
    put_varint(&mut message, len(blob));
    message.put_slice(blob);

    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put(message);
    frame.freeze()
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value > 0x7f {
        to.put_u8(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    to.put_u8(u8::try_from(value).unwrap());
}

/// Reads a stream to its end or its error; returns the bytes of the database that came.
async fn read(endpoint: Endpoint, options: ConnectOptions) -> (u64, Result<(), LiveError>) {
    let connection = Connector::new(options).unwrap().connect(&endpoint).await.unwrap();
    let mut stream = match connection.snapshot().await {
        Ok(stream) => stream,
        Err(error) => return (0, Err(error)),
    };
    loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return (stream.received(), Ok(())),
            Err(error) => {
                let after_the_error = stream.next().await;
                assert!(matches!(after_the_error, Ok(None)), "{after_the_error:?}");
                return (stream.received(), Err(error));
            }
        }
    }
}

#[track_caller]
fn fault(outcome: Result<(), LiveError>) -> StreamFault {
    match outcome.unwrap_err() {
        LiveError::Stream { source, .. } => source,
        other => panic!("not a fault of the stream: {other:?}"),
    }
}

fn whole() -> Vec<(u64, Vec<u8>)> {
    vec![(4_096, blob(32_768)), (0, blob(4_096)), (0, vec![9; DIGEST_LEN])]
}

#[tokio::test]
async fn a_whole_stream_is_read_to_its_end() {
    let endpoint = serve(whole(), Then::End).await;
    let (received, outcome) = read(endpoint, ConnectOptions::default()).await;
    outcome.unwrap();
    assert_eq!(received, 36_864);
}

#[tokio::test]
async fn a_stream_that_ends_before_its_digest_is_cut() {
    for kept in 1..=2 {
        let mut messages = whole();
        messages.truncate(kept);
        let endpoint = serve(messages, Then::End).await;
        let (received, outcome) = read(endpoint, ConnectOptions::default()).await;
        assert_eq!(fault(outcome), StreamFault::Cut { received, total: 36_864 });
    }
    let endpoint = serve(vec![], Then::End).await;
    let (_, outcome) = read(endpoint, ConnectOptions::default()).await;
    assert_eq!(fault(outcome), StreamFault::Empty);
}

#[tokio::test]
async fn a_stream_of_empty_blobs_is_ended() {
    let messages = vec![(4_096, blob(32_768)), (4_096, vec![]), (4_096, vec![])];
    let endpoint = serve(messages, Then::FallSilent).await;
    let (received, outcome) = read(endpoint, ConnectOptions::default()).await;
    assert_eq!(received, 32_768);
    assert_eq!(fault(outcome), StreamFault::NotFalling { remaining: 4_096 });
}

#[tokio::test]
async fn what_follows_the_digest_makes_it_worthless() {
    let mut messages = whole();
    messages.push((0, blob(1)));
    let endpoint = serve(messages, Then::End).await;
    let (_, outcome) = read(endpoint, ConnectOptions::default()).await;
    assert_eq!(fault(outcome), StreamFault::AfterDigest);
}

#[tokio::test]
async fn silence_is_bounded() {
    // Long enough for what is no silence, on a machine that is busy.
    let after = Duration::from_secs(1);
    let options = || ConnectOptions { stall_timeout: after, ..ConnectOptions::default() };
    let endpoint = serve(vec![(4_096, blob(32_768))], Then::FallSilent).await;
    let (received, outcome) = read(endpoint, options()).await;
    assert_eq!(fault(outcome), StreamFault::Stalled { received, after });
    assert_eq!(received, 32_768);

    let endpoint = serve(vec![], Then::FallSilent).await;
    let (_, outcome) = read(endpoint, options()).await;
    assert_eq!(fault(outcome), StreamFault::Stalled { received: 0, after });
}

#[tokio::test]
async fn a_lost_connection_is_told_with_what_had_arrived() {
    let told = Arc::new(Notify::new());
    let then = Then::DropTheConnection(Arc::clone(&told));
    let endpoint = serve(vec![(4_096, blob(32_768))], then).await;
    let connector = Connector::new(ConnectOptions::default()).unwrap();
    let mut stream = connector.connect(&endpoint).await.unwrap().snapshot().await.unwrap();
    assert!(matches!(stream.next().await, Ok(Some(SnapshotPart::Data(_)))));

    told.notify_one();
    let error = stream.next().await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let LiveError::Interrupted { received, total, .. } = error else { panic!("{error:?}") };
    assert_eq!((received, total), (32_768, 36_864));
}
