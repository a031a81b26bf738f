//! As much of HTTP/1.1 as a proxy needs: where a request and its answer begin and end.

use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// No head is longer, or something else than HTTP comes.
const HEAD_MAX: usize = 64 << 10;

/// The head of a request or of an answer, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    text: String,
}

impl Head {
    /// The next one. `None` where the connection ends instead.
    pub(crate) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            if from.read_until(b'\n', &mut bytes).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if &bytes[before..] == b"\r\n" {
                let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
                return Ok(Some(Self { text }));
            }
            if bytes.len() > HEAD_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// A request's.
    pub(crate) fn method(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    /// An answer's.
    pub(crate) fn status(&self) -> u16 {
        self.text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// What follows a request's head.
    pub(crate) fn request_body(&self) -> Body {
        match self.length() {
            _ if self.is_chunked() => Body::chunked(),
            length => Body::of(length.unwrap_or_default()),
        }
    }

    /// What follows the head of the answer to a request of this method.
    pub(crate) fn answer_body(&self, method: &str) -> Body {
        match (self.status(), self.length()) {
            (100..=199 | 204 | 304, _) => Body::of(0),
            _ if method == "HEAD" => Body::of(0),
            _ if self.is_chunked() => Body::chunked(),
            (_, Some(length)) => Body::of(length),
            (_, None) => Body { left: u64::MAX, then: Then::Nothing, is_open: true },
        }
    }
}

/// A body, piece by piece, as it came.
#[derive(Debug)]
pub(crate) struct Body {
    left: u64,
    then: Then,
    /// It ends with the connection.
    is_open: bool,
}

#[derive(Debug)]
enum Then {
    Nothing,
    Chunk,
    Trailer,
}

impl Body {
    pub(crate) fn of(length: u64) -> Self {
        Self { left: length, then: Then::Nothing, is_open: false }
    }

    fn chunked() -> Self {
        Self { left: 0, then: Then::Chunk, is_open: false }
    }

    /// How long it is said to be; `None` where nothing is said.
    pub(crate) fn length(&self) -> Option<u64> {
        (matches!(self.then, Then::Nothing) && !self.is_open).then_some(self.left)
    }

    /// Whether the connection ends with it.
    pub(crate) fn ends_the_connection(&self) -> bool {
        self.is_open
    }

    /// What comes next of it; `None` at its end.
    pub(crate) async fn next(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        if self.left > 0 {
            let buffer = from.fill_buf().await?;
            if buffer.is_empty() {
                return if self.is_open { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let piece = buffer[..len].to_vec();
            from.consume(len);
            self.left -= len as u64;
            return Ok(Some(piece));
        }
        if matches!(self.then, Then::Nothing) {
            return Ok(None);
        }
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.then {
            Then::Chunk => {
                let text = String::from_utf8_lossy(&line);
                let digits = text.trim().split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    self.then = Then::Trailer;
                } else {
                    self.left = size + 2;
                }
            }
            _ if line == b"\r\n" => self.then = Then::Nothing,
            _ => {}
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut body: Body, mut from: &[u8]) -> (Vec<u8>, usize) {
        let mut came = Vec::new();
        while let Some(piece) = body.next(&mut from).await.unwrap() {
            came.extend(piece);
        }
        (came, from.len())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bodies_end_where_their_heads_say() {
        let mut bytes = &b"PUT /b/k HTTP/1.1\r\nContent-Length: 5\r\n\r\nbytesGET"[..];
        let head = Head::read(&mut bytes).await.unwrap().unwrap();
        assert_eq!((head.method(), head.header("content-length")), ("PUT", Some("5")));
        assert_eq!(all(head.request_body(), bytes).await, (b"bytes".to_vec(), 3));
        let mut bytes =
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n0\r\nA: b\r\n\r\nHTTP"[..];
        let head = Head::read(&mut bytes).await.unwrap().unwrap();
        assert_eq!(all(head.answer_body("GET"), bytes).await, (b"3;x=1\r\nabc\r\n0\r\nA: b\r\n\r\n".to_vec(), 4));
        assert_eq!(all(head.answer_body("HEAD"), bytes).await.0, b"");
        let mut bytes = &b"HTTP/1.1 200 OK\r\n\r\nup to the end"[..];
        let head = Head::read(&mut bytes).await.unwrap().unwrap();
        assert_eq!(all(head.answer_body("GET"), bytes).await, (b"up to the end".to_vec(), 0));
        assert!(Head::read(&mut &b""[..]).await.unwrap().is_none());
        assert!(Head::read(&mut &b"GET / HTTP/1.1\r\n"[..]).await.is_err());
    }
}
