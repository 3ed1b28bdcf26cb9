//! As much of HTTP/1.1 as a proxy must know: where a message's head ends, and where its body does.

use std::io::{self, BufRead, Read, Write};

/// More than any head that S3 clients and servers send.
const LONGEST_HEAD: usize = 64 * 1024;

/// The first line and the headers of a request or an answer, as they came.
#[derive(Debug)]
pub(super) struct Head {
    text: String,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    /// The next head; `None` when the other side has closed between messages.
    pub(super) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            let mut line = reader.by_ref().take(u64::try_from(LONGEST_HEAD).unwrap_or(u64::MAX));
            if line.read_line(&mut text)? == 0 {
                return if text.is_empty() { Ok(None) } else { Err(broken("a head ends early")) };
            }
            if text.len() > LONGEST_HEAD {
                return Err(broken("a head is too long"));
            }
        }
        Ok(Some(Self { text }))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub(super) fn method_and_target(&self) -> (String, String) {
        let mut words = self.text.split(' ');
        let mut next = || words.next().unwrap_or_default().to_owned();
        (next(), next())
    }

    /// The same head, for a server that shall not ask for the body before it takes it.
    pub(super) fn without_expectation(&self) -> Vec<u8> {
        let is_expectation = |line: &str| line.to_ascii_lowercase().starts_with("expect:");
        let lines = self.text.split_inclusive("\r\n").filter(|line| !is_expectation(line));
        lines.collect::<String>().into_bytes()
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.says("expect", "100-continue")
    }

    pub(super) fn closes(&self) -> bool {
        self.says("connection", "close")
    }

    /// Whether another answer follows this one.
    pub(super) fn is_interim(&self) -> bool {
        self.status().starts_with('1')
    }

    /// A request's body.
    pub(super) fn body(&self) -> Body {
        self.framing().unwrap_or(Body::Length(0))
    }

    /// The body of the answer to `request`.
    pub(super) fn answer_body(&self, request: &Self) -> Body {
        if request.text.starts_with("HEAD ") || ["204", "304"].contains(&self.status()) {
            return Body::Length(0);
        }
        self.framing().unwrap_or(Body::UntilClose)
    }

    fn framing(&self) -> Option<Body> {
        if self.says("transfer-encoding", "chunked") {
            return Some(Body::Chunked);
        }
        self.header("content-length")?.parse().ok().map(Body::Length)
    }

    fn status(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|found| found.to_ascii_lowercase().contains(value))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        let (_, value) = headers.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }
}

/// Copies a body as it is framed, no byte more.
pub(super) fn copy_body(
    reader: &mut impl BufRead,
    writer: &mut impl Write,
    body: Body,
) -> io::Result<()> {
    match body {
        Body::Length(length) => copy_exactly(reader, writer, length),
        Body::Chunked => copy_chunks(reader, writer),
        Body::UntilClose => io::copy(reader, writer).map(drop),
    }
}

fn copy_exactly(reader: &mut impl Read, writer: &mut impl Write, length: u64) -> io::Result<()> {
    let copied = io::copy(&mut reader.by_ref().take(length), writer)?;
    if copied == length { Ok(()) } else { Err(broken("a body ends early")) }
}

fn copy_chunks(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<()> {
    loop {
        let line = copy_line(reader, writer)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| broken("a chunk has no size"))?;
        if size == 0 {
            // Trailers, each a line, up to an empty one.
            while !copy_line(reader, writer)?.trim().is_empty() {}
            return Ok(());
        }
        copy_exactly(reader, writer, size + 2)?;
    }
}

fn copy_line(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<String> {
    let mut line = String::new();
    let longest = u64::try_from(LONGEST_HEAD).unwrap_or(u64::MAX);
    if reader.by_ref().take(longest).read_line(&mut line)? == 0 {
        return Err(broken("a chunked body ends early"));
    }
    writer.write_all(line.as_bytes())?;
    Ok(line)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A writer that fails after so many bytes, which it has written by then.
#[derive(Debug)]
pub(super) struct Limited<W> {
    inner: W,
    left: u64,
}

impl<W> Limited<W> {
    pub(super) fn new(inner: W, left: u64) -> Self {
        Self { inner, left }
    }
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if some == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let written = self.inner.write(&bytes[..some])?;
        self.left -= u64::try_from(written).expect("a length fits 64 bits");
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::read(&mut text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        let get = head("GET /b/k?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(get.method_and_target(), ("GET".to_owned(), "/b/k?x=1".to_owned()));
        assert_eq!(get.body(), Body::Length(0));
        let put = head("PUT /k HTTP/1.1\r\ncontent-LENGTH: 12\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(put.body(), Body::Length(12));
        assert!(put.expects_continue());
        assert!(!String::from_utf8(put.without_expectation()).unwrap().contains("xpect"));
        let ok = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        assert_eq!(ok.answer_body(&get), Body::Chunked);
        assert!(ok.closes() && !ok.is_interim());
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").answer_body(&get), Body::UntilClose);
        assert_eq!(head("HTTP/1.1 204 Gone\r\n\r\n").answer_body(&get), Body::Length(0));
        let asked = head("HEAD /k HTTP/1.1\r\n\r\n");
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").answer_body(&asked),
            Body::Length(0)
        );
    }

    #[test]
    fn a_chunked_body_is_copied_to_its_end_and_no_further() {
        let body = "4;a=b\r\nwiki\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n";
        let stream = format!("{body}GET / HTTP/1.1\r\n");
        let (mut reader, mut copied) = (stream.as_bytes(), Vec::new());
        copy_body(&mut reader, &mut copied, Body::Chunked).unwrap();
        assert_eq!(String::from_utf8(copied).unwrap(), body);
        assert_eq!(reader, b"GET / HTTP/1.1\r\n");
    }

    #[test]
    fn a_body_that_ends_early_and_a_head_without_end_are_errors() {
        assert!(copy_body(&mut "abc".as_bytes(), &mut Vec::new(), Body::Length(4)).is_err());
        assert!(copy_body(&mut "4\r\nab".as_bytes(), &mut Vec::new(), Body::Chunked).is_err());
        assert!(Head::read(&mut "GET / HTTP/1.1\r\nHost".as_bytes()).is_err());
        let endless = "x".repeat(LONGEST_HEAD + 1);
        assert!(Head::read(&mut endless.as_bytes()).is_err());
        assert!(Head::read(&mut "".as_bytes()).unwrap().is_none());
    }

    #[test]
    fn a_limited_writer_has_written_up_to_its_limit() {
        let mut written = Vec::new();
        let copied = copy_body(
            &mut "abcdef".as_bytes(),
            &mut Limited::new(&mut written, 4),
            Body::Length(6),
        );
        assert!(copied.is_err());
        assert_eq!(written, b"abcd");
    }
}
