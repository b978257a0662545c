use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// More of a page is not read.
const LONGEST_BODY: u64 = 16 << 20;
/// Longer heads are refused, those of interim answers included, as are longer lines between chunks.
const LONGEST_HEAD: u64 = 64 << 10;

/// What a web server answered.
#[derive(Debug)]
pub struct Page {
    /// The status: 200 when all is well.
    pub status: u16,
    /// The page, its first 16 MiB.
    pub body: Vec<u8>,
}

/// A GET of `path` from a port of 127.0.0.1; `limit` holds for all of it, however slowly the page comes.
pub(crate) fn get(port: u16, host: &str, path: &str, limit: Duration) -> io::Result<Page> {
    let end = Instant::now() + limit;
    let mut connection = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
    connection.set_write_timeout(Some(limit))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bakehouse\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes())?;
    read_page(&mut BufReader::new(Until { connection, end }))
}

/// A connection that is read from until a moment.
struct Until {
    connection: TcpStream,
    end: Instant,
}

impl Read for Until {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the answer did not end in time");
        if left.is_zero() {
            return Err(late());
        }
        self.connection.set_read_timeout(Some(left))?;
        self.connection.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
            _ => error,
        })
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP response: {what}"))
}

/// A line without its end; `left` is how much may still come.
fn line(input: &mut impl BufRead, left: &mut u64) -> io::Result<String> {
    let mut raw = Vec::new();
    input.by_ref().take(*left).read_until(b'\n', &mut raw)?;
    *left -= raw.len() as u64;
    if *left == 0 {
        return Err(bad("its head has no end"));
    }
    if raw.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed without an answer",
        ));
    }
    if !raw.ends_with(b"\n") {
        return Err(bad("a line without an end"));
    }
    Ok(String::from_utf8_lossy(&raw).trim_end().to_owned())
}

/// Reads the answer to a GET. A head of more than 64 KiB, and a page that is cut off, are errors.
pub fn read_page(input: &mut impl BufRead) -> io::Result<Page> {
    let mut left = LONGEST_HEAD;
    loop {
        let first = line(input, &mut left)?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|status| status.parse::<u16>().ok())
            .ok_or_else(|| bad(&first))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let header = line(input, &mut left)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').ok_or_else(|| bad(&header))?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse::<u64>().map_err(|_| bad(&header))?),
                "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
                _ => {}
            }
        }
        if (100..200).contains(&status) {
            continue;
        }
        let mut body = Vec::new();
        if chunked {
            read_chunks(input, &mut body)?;
        } else {
            let wanted = length.unwrap_or(LONGEST_BODY).min(LONGEST_BODY);
            let got = input.by_ref().take(wanted).read_to_end(&mut body)?;
            if length.is_some() && (got as u64) < wanted {
                return Err(bad("the page was cut off"));
            }
        }
        return Ok(Page { status, body });
    }
}

fn read_chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut left = LONGEST_HEAD;
        let size = line(input, &mut left)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let size = u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
        let size = size.ok_or_else(|| bad("a chunk without a size"))?;
        if size == 0 {
            return Ok(());
        }
        let wanted = size.min(LONGEST_BODY - body.len() as u64);
        let got = input.by_ref().take(wanted).read_to_end(body)? as u64;
        if got < wanted {
            return Err(bad("the page was cut off"));
        }
        if body.len() as u64 == LONGEST_BODY {
            return Ok(());
        }
        line(input, &mut left)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> io::Result<(u16, String)> {
        let page = read_page(&mut text.as_bytes())?;
        Ok((page.status, String::from_utf8_lossy(&page.body).into_owned()))
    }

    #[test]
    fn pages_of_every_framing_are_read() {
        let of_length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more";
        assert_eq!(page(of_length).unwrap(), (200, "hello".into()));
        let to_the_end = "HTTP/1.0 404 Not Found\r\n\r\nnothing";
        assert_eq!(page(to_the_end).unwrap(), (404, "nothing".into()));
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(page(chunked).unwrap(), (200, "hello".into()));
        let informed = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(page(informed).unwrap(), (204, String::new()));
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        for text in [
            "",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut off",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        ] {
            assert!(page(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused() {
        for endless in ["HTTP/1.1 103 Early Hints\r\n\r\n", "X-Header: value\r\n", "a"] {
            let text = format!("HTTP/1.1 200 OK\r\n{}", endless.repeat(LONGEST_HEAD as usize));
            let text = if endless.starts_with("HTTP") { &text[17..] } else { &text };
            assert!(page(text).unwrap_err().to_string().contains("has no end"), "{endless}");
        }
    }

    #[test]
    fn a_page_of_any_length_is_read_up_to_a_limit() {
        let endless = b"7fffffffffffffff\r\n".chain(io::repeat(b'x'));
        let mut answer =
            BufReader::new(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".chain(endless));
        assert_eq!(read_page(&mut answer).unwrap().body.len() as u64, LONGEST_BODY);
        let mut answer = BufReader::new(b"HTTP/1.1 200 OK\r\n\r\n".chain(io::repeat(b'x')));
        assert_eq!(read_page(&mut answer).unwrap().body.len() as u64, LONGEST_BODY);
    }

    #[test]
    fn a_page_that_drips_has_its_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut told = 0;
            // Until the other side has had enough.
            while connection.write_all(if told == 0 { b"HTTP/1.1 200 OK\r\nX-A: " } else { b"b" }).is_ok() {
                told += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            told
        });
        let error = get(port, "localhost", "/", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error.to_string(), "the answer did not end in time");
        assert!(server.join().unwrap() > 1);
    }
}
