use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn secret(text: &str) -> Secret {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Secret::read(file.path()).unwrap()
}

/// A server on a port of its own, and its `ready`.
async fn serving(access: Access) -> (SocketAddr, Arc<AtomicBool>, watch::Sender<Access>) {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), Arc::default()).await.unwrap();
    let (address, ready) = (server.address().unwrap(), server.ready());
    let (sender, receiver) = watch::channel(access);
    tokio::spawn(server.serve(receiver));
    (address, ready, sender)
}

async fn try_ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    extra: &str,
) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, extra: &str) -> String {
    try_ask(stream, path, extra).await.unwrap()
}

async fn get(address: SocketAddr, path: &str, extra: &str) -> String {
    ask(TcpStream::connect(address).await.unwrap(), path, extra).await
}

#[tokio::test]
async fn health_is_for_all_and_readiness_is_told() {
    let (address, ready, _access) =
        serving(Access { tls: None, token: Some(secret("t0ken")) }).await;
    assert!(get(address, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz", "").await.starts_with("HTTP/1.1 503"));
    ready.store(true, Ordering::Release);
    assert!(get(address, "/readyz", "").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/nothing", "").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_and_status_want_the_token_where_there_is_one() {
    let (address, _ready, access) =
        serving(Access { tls: None, token: Some(secret("t0ken")) }).await;
    for path in ["/metrics", "/status"] {
        for wrong in [
            "",
            "authorization: Bearer \r\n",
            "authorization: Bearer t0keN\r\n",
            "authorization: Bearer t0ken2\r\n",
            "authorization: t0ken\r\n",
        ] {
            let answer = get(address, path, wrong).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{path} {wrong:?}: {answer}");
        }
        let answer = get(address, path, "authorization: Bearer t0ken\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    access.send(Access { tls: None, token: None }).unwrap();
    assert!(get(address, "/metrics", "").await.contains("lifeboat_build_info"), "read again");
}

#[tokio::test(start_paused = true)]
async fn who_holds_all_connections_and_says_nothing_is_let_go_for_the_next() {
    let (address, _ready, _access) = serving(Access { tls: None, token: None }).await;
    let begun = tokio::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTT").await.unwrap();
        silent.push(stream);
    }
    // Time passes by itself when there is nothing to do, so also while the kernel carries bytes: who asks may be let go too.
    let healthy = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        try_ask(stream, "/healthz", "").await.is_ok_and(|a| a.starts_with("HTTP/1.1 200"))
    };
    while !healthy().await {
        assert!(begun.elapsed() < HEAD_TIMEOUT * 100, "nobody is let go");
    }
    let mut rest = Vec::new();
    // A close or a reset: both are the end.
    let _ = silent.remove(0).read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = testbed::Certificates::make_in(folder.path());
    let (cert, key) = certificates.server();
    let server = crate::tls::server(&crate::config::ServerTls { cert, key }).unwrap();
    let access = Access { tls: Some(TlsAcceptor::from(server)), token: None };
    let (address, _ready, _access) = serving(access).await;

    let plain = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    let mut plain = plain;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "an alert, or nothing");

    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
    let ca = CertificateDer::from_pem_file(certificates.ca()).unwrap();
    roots.add(ca).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    assert!(ask(stream, "/healthz", "").await.starts_with("HTTP/1.1 200"));
}

#[test]
fn tokens_are_the_same_only_if_every_byte_is() {
    assert!(is_same(b"abc", b"abc"));
    for given in [&b""[..], b"ab", b"abcd", b"abd", b"xbc"] {
        assert!(!is_same(given, b"abc"));
    }
    assert!(!is_same(b"", b""), "no token is not a token");
}
