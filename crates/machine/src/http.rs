use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// More of a page is not read.
const LONGEST_BODY: u64 = 16 << 20;
/// A longer line in a response's head is refused.
const LONGEST_LINE: u64 = 64 << 10;

/// What a web server answered.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A GET of `path` from a port of 127.0.0.1; `limit` holds for each read.
pub(crate) fn get(port: u16, host: &str, path: &str, limit: Duration) -> io::Result<Page> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
    connection.set_read_timeout(Some(limit))?;
    connection.set_write_timeout(Some(limit))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bakehouse\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes())?;
    read_page(&mut BufReader::new(connection))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP response: {what}"))
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut raw = Vec::new();
    input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut raw)?;
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

fn read_page(input: &mut impl BufRead) -> io::Result<Page> {
    loop {
        let first = line(input)?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|status| status.parse::<u16>().ok())
            .ok_or_else(|| bad(&first))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let header = line(input)?;
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
            while (body.len() as u64) < LONGEST_BODY {
                let size = line(input)?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(digits, 16).map_err(|_| bad("a chunk without a size"))?;
                if size == 0 {
                    break;
                }
                input.by_ref().take(size.min(LONGEST_BODY)).read_to_end(&mut body)?;
                line(input)?;
            }
        } else {
            input.by_ref().take(length.unwrap_or(LONGEST_BODY).min(LONGEST_BODY)).read_to_end(&mut body)?;
        }
        return Ok(Page { status, body });
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
        ] {
            assert!(page(text).is_err(), "{text:?}");
        }
    }
}
