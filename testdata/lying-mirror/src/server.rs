//! A small HTTP server with the faults that a test asks for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How the server behaves. Lists are used up one request at a time; maps hold for all requests. Paths have no slash at
/// their beginning.
#[derive(Default)]
pub struct Behaviour {
    /// Close the connection after so many bytes of the body.
    pub cut_after: Vec<usize>,
    /// Answer with these statuses first.
    pub statuses: Vec<u16>,
    /// Answer ranges; else always send the whole file.
    pub ranges: bool,
    /// Paths that are not there.
    pub hidden: Vec<String>,
    /// Paths that are refused with status 403.
    pub refused: Vec<String>,
    /// Other bytes than the file has.
    pub lies: BTreeMap<String, Vec<u8>>,
    /// Only the first bytes, as if that were the whole file.
    pub truncated: BTreeMap<String, usize>,
    /// Say nothing more after so many bytes of the body, and keep the connection open.
    pub stalls: BTreeMap<String, usize>,
    /// Send the body in drops: a byte, then this long nothing.
    pub drips: BTreeMap<String, Duration>,
    /// Paths and how often each was asked for.
    pub asked: BTreeMap<String, usize>,
    /// Every `Range` header that came.
    pub range_headers: Vec<String>,
}

/// A server on the loopback; it serves until the process ends.
pub struct Server {
    /// Its address: `http://127.0.0.1:<port>`.
    pub uri: String,
    /// What it does, and what it was asked. May be changed while it serves.
    pub behaviour: Arc<Mutex<Behaviour>>,
}

impl Server {
    /// Serves a folder.
    pub fn start(folder: &Path, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
        let uri = format!("http://{}", listener.local_addr().expect("its address"));
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (shared, folder) = (Arc::clone(&behaviour), folder.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, folder) = (Arc::clone(&shared), folder.clone());
                // A client that hangs up is no fault of the server.
                std::thread::spawn(move || drop(serve(stream, &folder, &shared)));
            }
        });
        Self { uri, behaviour }
    }

    /// Its behaviour, to look at or change.
    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().expect("no request has panicked")
    }
}

/// An address where nobody listens.
pub fn gone() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    format!("http://{}", listener.local_addr().expect("its address"))
}

/// What is sent for one request.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    cut: Option<usize>,
    stall: Option<usize>,
    drip: Option<Duration>,
}

fn serve(mut stream: TcpStream, folder: &Path, behaviour: &Mutex<Behaviour>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').replace("%2B", "+");
    let (mut range, mut if_range) = (None, None);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let (name, value) = header.trim_end().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "if-range" => if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    let answer = {
        let mut behaviour = behaviour.lock().map_err(|_| std::io::Error::other("a request has panicked"))?;
        answer(&mut behaviour, &path, folder.join(&path), range, if_range)
    };
    let Answer { status, head, body, cut, stall, drip } = answer;
    let header =
        format!("HTTP/1.1 {status} x\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(header.as_bytes())?;
    if let Some(pause) = drip {
        for byte in body {
            stream.write_all(&[byte])?;
            std::thread::sleep(pause);
        }
        return Ok(());
    }
    let end = cut.or(stall).unwrap_or(body.len()).min(body.len());
    stream.write_all(&body[..end])?;
    if stall.is_some() {
        // Until the client has had enough.
        drop(reader.read(&mut [0]));
    }
    Ok(())
}

fn answer(
    behaviour: &mut Behaviour,
    path: &str,
    file: PathBuf,
    range: Option<String>,
    if_range: Option<String>,
) -> Answer {
    *behaviour.asked.entry(path.to_owned()).or_default() += 1;
    behaviour.range_headers.extend(range.clone());
    let mut answer =
        Answer { status: 200, head: String::new(), body: Vec::new(), cut: None, stall: None, drip: None };
    if !behaviour.statuses.is_empty() {
        answer.status = behaviour.statuses.remove(0);
        return answer;
    }
    if behaviour.refused.iter().any(|refused| refused == path) {
        answer.status = 403;
        return answer;
    }
    let hidden = behaviour.hidden.iter().any(|hidden| hidden == path);
    let content = behaviour.lies.get(path).cloned().or_else(|| fs::read(file).ok());
    let Some(mut content) = content.filter(|_| !hidden) else {
        answer.status = 404;
        return answer;
    };
    if let Some(len) = behaviour.truncated.get(path) {
        content.truncate(*len);
    }
    answer.cut = (!behaviour.cut_after.is_empty()).then(|| behaviour.cut_after.remove(0));
    answer.stall = behaviour.stalls.get(path).copied();
    answer.drip = behaviour.drips.get(path).copied();
    let tag = format!("\"{}\"", block::Digest::of(&content));
    let from =
        range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from.filter(|from| behaviour.ranges && if_range.as_ref() == Some(&tag) && *from < content.len()) {
        Some(from) => {
            answer.status = 206;
            answer.head = format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len());
            answer.body = content.split_off(from);
        }
        None => {
            answer.head = format!("ETag: {tag}\r\n");
            answer.body = content;
        }
    }
    answer
}
