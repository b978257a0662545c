//! A small HTTP server with the faults that a test asks for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// How the server behaves. Faults are used up one request at a time.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// Close the connection after so many bytes of the body.
    pub(crate) cut_after: Vec<usize>,
    /// Answer with these statuses first.
    pub(crate) statuses: Vec<u16>,
    /// Answer ranges; else always send the whole file.
    pub(crate) ranges: bool,
    /// Paths that are not there.
    pub(crate) hidden: Vec<String>,
    /// Paths that are refused with status 403.
    pub(crate) refused: Vec<String>,
    /// Paths and how often each was asked for.
    pub(crate) asked: BTreeMap<String, usize>,
    /// Every `Range` header that came.
    pub(crate) range_headers: Vec<String>,
}

pub(crate) struct Server {
    pub(crate) uri: String,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
}

impl Server {
    /// Serves a folder until the test ends.
    pub(crate) fn start(folder: &Path, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (shared, folder) = (Arc::clone(&behaviour), folder.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, folder) = (Arc::clone(&shared), folder.clone());
                std::thread::spawn(move || serve(stream, &folder, &shared));
            }
        });
        Self { uri, behaviour }
    }
}

fn serve(stream: TcpStream, folder: &Path, behaviour: &Mutex<Behaviour>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').replace("%2B", "+");
    let (mut range, mut if_range) = (None, None);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) <= 2 {
            break;
        }
        let (name, value) = header.trim_end().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "if-range" => if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut shared = behaviour.lock().unwrap();
    *shared.asked.entry(path.clone()).or_default() += 1;
    shared.range_headers.extend(range.clone());
    let status = (!shared.statuses.is_empty()).then(|| shared.statuses.remove(0));
    let status = status.or(shared.refused.contains(&path).then_some(403));
    let content = if shared.hidden.contains(&path) { None } else { fs::read(folder.join(&path)).ok() };
    let cut = (!shared.cut_after.is_empty() && content.is_some()).then(|| shared.cut_after.remove(0));
    let ranges = shared.ranges;
    drop(shared);
    let (status, head, body) = match (status, content) {
        (Some(status), _) => (status, String::new(), Vec::new()),
        (None, None) => (404, String::new(), Vec::new()),
        (None, Some(content)) => {
            let tag = format!("\"{}\"", block::Digest::of(&content));
            let from = range
                .as_deref()
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            match from.filter(|from| ranges && if_range.as_ref() == Some(&tag) && *from < content.len()) {
                Some(from) => {
                    let range =
                        format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len());
                    (206, range, content[from..].to_vec())
                }
                None => (200, format!("ETag: {tag}\r\n"), content),
            }
        }
    };
    let header =
        format!("HTTP/1.1 {status} x\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let sent = &body[..cut.unwrap_or(body.len()).min(body.len())];
    // A client that hangs up is no fault of the server.
    let _ = stream.write_all(header.as_bytes()).and_then(|()| stream.write_all(sent));
}
