//! Long arrays, handed through the driver as one string each.
//!
//! The driver makes a value with memory of its own of each element of an array, which takes several times as long as
//! everything else about a read of a build. So a connection for such reads wraps each array that comes into one string
//! of the protocol: the driver copies it as it is, and whoever asked looks at the elements where they are.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// How much memory is kept for what comes next.
const KEPT: usize = 1024 * 1024;

/// A connection whose answers are passed on as they are, except for arrays.
pub(crate) struct Bundled<S> {
    stream: S,
    /// What came, and was not passed on yet.
    incoming: Vec<u8>,
    /// Of that, what is to be passed on next.
    next: Range<usize>,
    /// What goes before that, and what after it.
    before: Vec<u8>,
    after: &'static [u8],
    scan: Scan,
}

impl<S> Bundled<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, incoming: Vec::new(), next: 0..0, before: Vec::new(), after: b"", scan: Scan::default() }
    }

    /// Passes on what there is to.
    fn pass_on(&mut self, out: &mut ReadBuf<'_>) {
        let before = out.remaining().min(self.before.len());
        out.put_slice(&self.before[..before]);
        self.before.drain(..before);
        let next = (self.next.start + out.remaining()).min(self.next.end);
        out.put_slice(&self.incoming[self.next.start..next]);
        self.next.start = next;
        if self.next.is_empty() {
            let (now, later) = self.after.split_at(self.after.len().min(out.remaining()));
            out.put_slice(now);
            self.after = later;
        }
    }

    /// Finds the next whole answer. Gives whether it has come.
    fn find_next(&mut self) -> bool {
        let came = &self.incoming[self.next.end..];
        let Some(answer) = self.scan.end(came) else { return false };
        let is_array = matches!(answer, Found::Answer(_)) && came.first() == Some(&b'*');
        let length = match answer {
            Found::Answer(length) => length,
            // The driver is to say what is wrong with it.
            Found::Nonsense => came.len(),
        };
        if is_array {
            self.before = format!("${length}\r\n").into_bytes();
            self.after = b"\r\n";
        }
        self.next = self.next.end..self.next.end + length;
        self.scan = Scan::default();
        true
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bundled<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, free) = (self.get_mut(), out.remaining());
        loop {
            this.pass_on(out);
            if out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.find_next() {
                continue;
            }
            if out.remaining() < free {
                return Poll::Ready(Ok(()));
            }
            // All that was whole was passed on.
            this.incoming.drain(..this.next.end);
            this.next = 0..0;
            if this.incoming.is_empty() && this.incoming.capacity() > KEPT {
                this.incoming = Vec::new();
            }
            this.incoming.reserve(CHUNK);
            if ready!(poll_read_buf(Pin::new(&mut this.stream), context, &mut this.incoming))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bundled<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// How far an answer was looked through that has not come as a whole.
struct Scan {
    at: usize,
    /// How many values of the protocol are still to come.
    values: usize,
}

enum Found {
    /// An answer of so many bytes.
    Answer(usize),
    Nonsense,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: 0, values: 1 }
    }
}

impl Scan {
    /// Where the answer ends that these bytes begin with; nothing when that has not come yet.
    fn end(&mut self, bytes: &[u8]) -> Option<Found> {
        while self.values > 0 {
            let (kind, line) = line(bytes, self.at)?;
            let text = &bytes[line.clone()];
            let end = line.end + 2;
            let (end, values) = match (kind, number(text)) {
                (b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(', _) => (Some(end), Some(0)),
                (b'$' | b'*', _) if text == b"-1" => (Some(end), Some(0)),
                (b'$' | b'!' | b'=', Some(length)) => (length.checked_add(end + 2), Some(0)),
                (b'*' | b'~' | b'>', Some(length)) => (Some(end), Some(length)),
                (b'%', Some(length)) => (Some(end), length.checked_mul(2)),
                // Attributes stand before the value that they are about.
                (b'|', Some(length)) => (Some(end), length.checked_mul(2).and_then(|values| values.checked_add(1))),
                _ => (None, None),
            };
            let (Some(end), Some(values)) = (end, values.and_then(|more| (self.values - 1).checked_add(more))) else {
                return Some(Found::Nonsense);
            };
            if end > bytes.len() {
                return None;
            }
            (self.at, self.values) = (end, values);
        }
        Some(Found::Answer(self.at))
    }
}

/// The kind of the value that begins here, and the rest of its first line.
fn line(bytes: &[u8], at: usize) -> Option<(u8, Range<usize>)> {
    let (kind, rest) = bytes.get(at..)?.split_first()?;
    let length = rest.windows(2).position(|two| two == b"\r\n")?;
    Some((*kind, at + 1..at + 1 + length))
}

fn number(text: &[u8]) -> Option<usize> {
    let digit = |number: usize, digit: &u8| {
        digit.is_ascii_digit().then(|| number.checked_mul(10)?.checked_add(usize::from(digit - b'0')))?
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digit) }
}

/// The strings of an array that was wrapped; `None` for one that is not there. Nothing when there is something else in it.
pub(crate) fn strings(bundle: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (b'*', count) = line(bundle, 0)? else { return None };
    let mut at = count.end + 2;
    // What the server says is not believed: there are no more than bytes.
    let count = number(&bundle[count])?;
    let mut strings = Vec::with_capacity(count.min(bundle.len()));
    for _ in 0..count {
        let (kind, length) = line(bundle, at)?;
        at = length.end + 2;
        let string = match (kind, &bundle[length]) {
            (b'_', b"") | (b'$', b"-1") => None,
            (b'$', length) => {
                let start = at;
                at = number(length)?.checked_add(at)?;
                let string = bundle.get(start..at)?;
                if bundle.get(at..at + 2)? != b"\r\n" {
                    return None;
                }
                at += 2;
                Some(string)
            }
            _ => return None,
        };
        strings.push(string);
    }
    Some(strings)
}

#[cfg(test)]
mod tests {
    use redis::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes out when this comes in, in pieces of so many bytes, and is read in pieces of so many.
    async fn through(answers: &[u8], written: usize, read: usize) -> Vec<u8> {
        let (mut server, client) = tokio::io::duplex(written);
        let answers = answers.to_vec();
        let writing = tokio::spawn(async move { server.write_all(&answers).await.unwrap() });
        let (mut bundled, mut all) = (Bundled::new(client), Vec::new());
        let mut piece = vec![0; read];
        loop {
            match bundled.read(&mut piece).await.unwrap() {
                0 => break,
                read => all.extend_from_slice(&piece[..read]),
            }
        }
        writing.await.unwrap();
        all
    }

    const ARRAY: &str = "*4\r\n$3\r\nabc\r\n$0\r\n\r\n_\r\n$6\r\na\r\n$1\r\r\n";

    #[tokio::test]
    async fn an_array_becomes_a_string_and_all_else_stays_wherever_it_is_cut() {
        let others = [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "$-1\r\n",
            "_\r\n",
            "$4\r\n*1\r\n\r\n",
            "%1\r\n$5\r\nproto\r\n:3\r\n",
            "|1\r\n+a\r\n+b\r\n:1\r\n",
            ">2\r\n+message\r\n$1\r\nx\r\n",
        ];
        let arrays = [ARRAY, "*0\r\n", "*2\r\n*1\r\n:1\r\n%1\r\n+a\r\n*1\r\n:2\r\n", "*-1\r\n"];
        let (mut answers, mut expected) = (String::new(), String::new());
        for (index, other) in others.iter().enumerate() {
            let array = arrays[index % arrays.len()];
            answers.extend([*other, array]);
            expected.push_str(other);
            expected.push_str(&format!("${}\r\n{array}\r\n", array.len()));
        }
        for (written, read) in [(1, 1), (1, 1024), (2, 7), (7, 3), (1024, 1), (4096, 4096)] {
            let got = through(answers.as_bytes(), written, read).await;
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{written} {read}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_and_what_has_no_end_is_left_to_the_driver() {
        for nonsense in ["hello\r\n", "*x\r\n", "$1x\r\n", "*99999999999999999999\r\n", "%18446744073709551615\r\n"] {
            let answers = format!("+OK\r\n{nonsense}");
            assert_eq!(String::from_utf8(through(answers.as_bytes(), 1024, 1024).await).unwrap(), answers);
        }
        // Its end is told, so that the driver knows that the connection is lost.
        assert_eq!(through(b":1\r\n*2\r\n:1\r\n", 1024, 1024).await, b":1\r\n");
    }

    #[test]
    fn the_strings_of_a_bundle_are_those_that_the_driver_reads() {
        let Value::Array(values) = redis::parse_redis_value(ARRAY.as_bytes()).unwrap() else { panic!("no array") };
        let expected: Vec<_> = values
            .iter()
            .map(|value| match value {
                Value::BulkString(bytes) => Some(bytes.as_slice()),
                _ => None,
            })
            .collect();
        assert_eq!(strings(ARRAY.as_bytes()).unwrap(), expected);
        for other in ["", "*1\r\n", "*1\r\n:1\r\n", "*1\r\n$5\r\nabc\r\n", "*-1\r\n", "$1\r\na\r\n", "*9999999\r\n"] {
            assert_eq!(strings(other.as_bytes()), None, "{other}");
        }
    }
}
