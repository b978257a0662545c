use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use block::Hasher;

/// The address that the guest gets; the network's other addresses are QEMU's.
pub(crate) const GUEST_ADDRESS: &str = "172.31.0.15";
/// The card's hardware address.
pub(crate) const GUEST_MAC: &str = "06:ba:4e:00:00:0f";
/// The versions of the tree that the service answers to, oldest first.
const VERSIONS: &[&str] = &[
    "2009-04-04",
    "2014-02-25",
    "2016-09-02",
    "2018-09-24",
    "2020-10-27",
    "2021-03-23",
    "2024-04-11",
    "latest",
];
/// Requests with a longer head are refused.
const LONGEST_HEAD: u64 = 64 * 1024;
/// More connections at once are closed as they come; cloud-init has one or two.
const MOST_CONNECTIONS: usize = 64;
/// A guest that says nothing, or takes nothing, for so long has gone; its connection goes too.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Seventeen hexadecimal digits that follow from `names`, as AWS's ids have them.
pub(crate) fn derived_digits(names: &[&str]) -> String {
    let mut hasher = Hasher::new();
    for name in names {
        hasher.field(name.as_bytes());
    }
    hasher.finish().to_hex()[..17].to_owned()
}

/// What a machine is told about itself through the metadata service.
///
/// All ids follow from names: the same machine is told the same at every boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `ami-` and 17 hexadecimal digits.
    pub ami_id: String,
    /// `i-` and 17 hexadecimal digits. cloud-init takes a machine with a new one for a new machine.
    pub instance_id: String,
    /// Such as `t3.small`.
    pub instance_type: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Such as `local`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// OpenSSH public key lines by name.
    pub public_keys: Vec<(String, String)>,
    /// `ami`, `root`, `ebs1`, `ephemeral0` … and the device names.
    pub block_devices: Vec<(String, String)>,
    /// What the user gave for the first boot.
    pub user_data: Option<Vec<u8>>,
}

impl Instance {
    /// The private host name, as EC2 makes it from the address.
    pub fn local_hostname(&self) -> String {
        format!("ip-{}.{}.compute.internal", GUEST_ADDRESS.replace('.', "-"), self.region)
    }

    fn reservation_id(&self) -> String {
        format!("r-{}", derived_digits(&["reservation", &self.instance_id]))
    }

    /// The document that `dynamic/instance-identity/document` gives, in JSON.
    pub fn identity_document(&self) -> String {
        let document = serde_json::json!({
            "accountId": self.account,
            "architecture": self.architecture,
            "availabilityZone": format!("{}a", self.region),
            "billingProducts": null,
            "devpayProductCodes": null,
            "marketplaceProductCodes": null,
            "imageId": self.ami_id,
            "instanceId": self.instance_id,
            "instanceType": self.instance_type,
            "kernelId": null,
            "pendingTime": "2000-01-01T00:00:00Z",
            "privateIp": GUEST_ADDRESS,
            "ramdiskId": null,
            "region": self.region,
            "version": "2017-09-30",
        });
        format!("{document:#}")
    }

    /// Every leaf of a version's tree: the path below the version, and its content.
    fn leaves(&self) -> BTreeMap<String, Vec<u8>> {
        let derived =
            |prefix: &str| format!("{prefix}-{}", derived_digits(&[prefix, &self.account, &self.region]));
        let zone = format!("{}a", self.region);
        let mut leaves = BTreeMap::new();
        let mut meta = |path: &str, value: &str| {
            leaves.insert(format!("meta-data/{path}"), value.as_bytes().to_vec());
        };
        meta("ami-id", &self.ami_id);
        meta("ami-launch-index", "0");
        meta("ami-manifest-path", "(unknown)");
        for (name, device) in &self.block_devices {
            meta(&format!("block-device-mapping/{name}"), device);
        }
        meta("hostname", &self.local_hostname());
        meta("instance-action", "none");
        meta("instance-id", &self.instance_id);
        meta("instance-life-cycle", "on-demand");
        meta("instance-type", &self.instance_type);
        meta("local-hostname", &self.local_hostname());
        meta("local-ipv4", GUEST_ADDRESS);
        meta("mac", GUEST_MAC);
        let card = |name: &str| format!("network/interfaces/macs/{GUEST_MAC}/{name}");
        meta(&card("device-number"), "0");
        meta(&card("interface-id"), &derived("eni"));
        meta(&card("local-hostname"), &self.local_hostname());
        meta(&card("local-ipv4s"), GUEST_ADDRESS);
        meta(&card("mac"), GUEST_MAC);
        meta(&card("owner-id"), &self.account);
        meta(&card("security-group-ids"), &derived("sg"));
        meta(&card("security-groups"), "default");
        meta(&card("subnet-id"), &derived("subnet"));
        meta(&card("subnet-ipv4-cidr-block"), "172.31.0.0/20");
        meta(&card("vpc-id"), &derived("vpc"));
        meta(&card("vpc-ipv4-cidr-block"), "172.31.0.0/16");
        meta(&card("vpc-ipv4-cidr-blocks"), "172.31.0.0/16");
        meta("placement/availability-zone", &zone);
        meta("placement/availability-zone-id", &format!("{}-az1", self.region));
        meta("placement/region", &self.region);
        meta("profile", "default-hvm");
        for (index, (_, key)) in self.public_keys.iter().enumerate() {
            meta(&format!("public-keys/{index}/openssh-key"), key);
        }
        meta("reservation-id", &self.reservation_id());
        meta("security-groups", "default");
        meta("services/domain", "amazonaws.com");
        meta("services/partition", "aws");
        leaves.insert("dynamic/instance-identity/document".into(), self.identity_document().into_bytes());
        if let Some(user_data) = &self.user_data {
            leaves.insert("user-data".into(), user_data.clone());
        }
        leaves
    }

    /// Answers requests as the metadata service does, one after the other, until there are no more or one cannot be read.
    pub fn converse(&self, input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
        Shared { instance: self.clone(), started: Instant::now() }.converse(input, output)
    }

    /// The answer to a GET of `path` by someone who may ask: the bytes, or `None` where there is nothing.
    ///
    /// A folder answers with its entries, one a line, those that are folders with a slash at the end.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        let path = path.split('?').next().unwrap_or_default();
        let mut names = path.split('/').filter(|name| !name.is_empty());
        let Some(version) = names.next() else {
            return Some(VERSIONS.join("\n").into_bytes());
        };
        if !VERSIONS.contains(&version) {
            return None;
        }
        let wanted = names.collect::<Vec<_>>().join("/");
        let leaves = self.leaves();
        if let Some(content) = leaves.get(&wanted) {
            return Some(content.clone());
        }
        let prefix = if wanted.is_empty() { String::new() } else { format!("{wanted}/") };
        let mut entries = Vec::<String>::new();
        for path in leaves.keys() {
            let Some(rest) = path.strip_prefix(&prefix) else { continue };
            let entry = match rest.split_once('/') {
                Some((key, _)) if wanted == "meta-data/public-keys" => {
                    let name = key.parse::<usize>().ok().and_then(|index| self.public_keys.get(index));
                    format!("{key}={}", name.map_or("", |(name, _)| name))
                }
                Some((folder, _)) => format!("{folder}/"),
                None => rest.to_owned(),
            };
            if entries.last() != Some(&entry) {
                entries.push(entry);
            }
        }
        (!entries.is_empty()).then(|| entries.join("\n").into_bytes())
    }
}

/// The metadata service of one machine: IMDSv2 over a unix socket, one thread a connection.
///
/// `PUT /latest/api/token` with `X-aws-ec2-metadata-token-ttl-seconds` gives a token; every GET wants one in
/// `X-aws-ec2-metadata-token` and is answered 401 without. The service stops when the value is dropped.
#[derive(Debug)]
pub struct MetadataService {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetadataService {
    /// Listens on a new unix socket at `socket`, whose path may have 107 bytes at most.
    pub fn start(socket: &Path, instance: Instance) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let shared = Arc::new(Shared { instance, started: Instant::now() });
        let open = Arc::new(());
        let thread = std::thread::Builder::new().name("metadata".into()).spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                if Arc::strong_count(&open) > MOST_CONNECTIONS {
                    continue;
                }
                let (shared, counted) = (Arc::clone(&shared), Arc::clone(&open));
                // Without a thread the connection closes and the guest asks again.
                let _ = std::thread::Builder::new().name("metadata connection".into()).spawn(move || {
                    shared.serve(connection);
                    drop(counted);
                });
            }
        })?;
        Ok(Self { socket: socket.into(), stop, thread: Some(thread) })
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let woken = UnixStream::connect(&self.socket).is_ok();
        if let Some(thread) = self.thread.take()
            && woken
        {
            let _ = thread.join();
        }
    }
}

struct Shared {
    instance: Instance,
    started: Instant,
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

struct Response {
    status: u16,
    reason: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    fn error(status: u16, reason: &'static str) -> Self {
        let body = format!("{status} - {reason}\n").into_bytes();
        Self { status, reason, headers: Vec::new(), body }
    }
}

impl Shared {
    fn serve(&self, connection: UnixStream) {
        let _ = connection.set_read_timeout(Some(SILENCE_LIMIT));
        let _ = connection.set_write_timeout(Some(SILENCE_LIMIT));
        let Ok(mut output) = connection.try_clone() else { return };
        // When the guest is gone, there is nobody to tell.
        let _ = self.converse(&mut BufReader::new(connection), &mut output);
    }

    /// Answers one request after the other until the guest has no more, or says something that is none.
    fn converse(&self, input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
        loop {
            let request = match read_request(input) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return write_response(output, &Response::error(400, "Bad Request"), false, true);
                }
                Err(error) => return Err(error),
            };
            let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let head = request.method == "HEAD";
            write_response(output, &self.answer(&request), head, close)?;
            if close {
                return Ok(());
            }
        }
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            // Requests that came through a proxy are refused, as the real service refuses them.
            ("PUT", _) if request.header("x-forwarded-for").is_some() => Response::error(403, "Forbidden"),
            ("PUT", "/latest/api/token") => {
                let seconds = request
                    .header("x-aws-ec2-metadata-token-ttl-seconds")
                    .and_then(|value| value.trim().parse::<u64>().ok())
                    .filter(|seconds| (1..=21_600).contains(seconds));
                match seconds {
                    None => Response::error(400, "Bad Request"),
                    Some(seconds) => {
                        let header = ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", seconds.to_string());
                        let body = self.token(self.started.elapsed().as_secs() + seconds).into_bytes();
                        Response { status: 200, reason: "OK", headers: vec![header], body }
                    }
                }
            }
            ("GET" | "HEAD", path) => {
                if !request.header("x-aws-ec2-metadata-token").is_some_and(|token| self.accepts(token)) {
                    return Response::error(401, "Unauthorized");
                }
                match self.instance.get(path) {
                    Some(body) => Response { status: 200, reason: "OK", headers: Vec::new(), body },
                    None => Response::error(404, "Not Found"),
                }
            }
            ("PUT", _) => Response::error(404, "Not Found"),
            _ => Response::error(405, "Method Not Allowed"),
        }
    }

    /// A token that carries its own end, in seconds since the service started.
    fn token(&self, end: u64) -> String {
        format!(
            "{end:x}-{}",
            derived_digits(&["metadata token", &self.instance.instance_id, &end.to_string()])
        )
    }

    fn accepts(&self, token: &str) -> bool {
        let end = token.split_once('-').and_then(|(end, _)| u64::from_str_radix(end, 16).ok());
        end.is_some_and(|end| self.started.elapsed().as_secs() < end && self.token(end) == token)
    }
}

fn read_request(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut left = LONGEST_HEAD;
    let mut line = |left: &mut u64| -> io::Result<Option<String>> {
        let mut raw = Vec::new();
        let read = input.by_ref().take(*left).read_until(b'\n', &mut raw)? as u64;
        if read == 0 && *left > 0 {
            return Ok(None);
        }
        *left -= read;
        if !raw.ends_with(b"\n") {
            return Err(invalid());
        }
        let text = String::from_utf8(raw).map_err(|_| invalid())?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    let Some(first) = line(&mut left)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    if !version.starts_with("HTTP/1.") || !path.starts_with('/') {
        return Err(invalid());
    }
    let mut headers = Vec::new();
    loop {
        let text = line(&mut left)?.ok_or_else(invalid)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or_else(invalid)?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let request = Request { method: method.into(), path: path.into(), headers };
    // The service takes no bodies; what one brings is read past, so that the next request is found.
    let length = match request.header("content-length") {
        Some(value) => value.parse::<u64>().map_err(|_| invalid())?,
        None => 0,
    };
    if length > LONGEST_HEAD {
        return Err(invalid());
    }
    io::copy(&mut input.by_ref().take(length), &mut io::sink())?;
    Ok(Some(request))
}

fn write_response(output: &mut impl Write, response: &Response, head: bool, close: bool) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {} {}\r\n", response.status, response.reason).into_bytes();
    for (name, value) in &response.headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let connection = if close { "close" } else { "keep-alive" };
    bytes.extend_from_slice(
        format!(
            "Content-Type: text/plain\r\nContent-Length: {}\r\nServer: EC2ws\r\nConnection: {connection}\r\n\r\n",
            response.body.len()
        )
        .as_bytes(),
    );
    if !head {
        bytes.extend_from_slice(&response.body);
    }
    output.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance {
            ami_id: "ami-0123456789abcdef0".into(),
            instance_id: "i-0123456789abcdef0".into(),
            instance_type: "t3.small".into(),
            architecture: "x86_64".into(),
            region: "local".into(),
            account: "000000000000".into(),
            public_keys: vec![("bakehouse".into(), "ssh-ed25519 AAAA bakehouse".into())],
            block_devices: vec![("ami".into(), "/dev/xvda".into()), ("root".into(), "/dev/xvda".into())],
            user_data: None,
        }
    }

    struct Client {
        connection: BufReader<UnixStream>,
        token: Option<String>,
    }

    impl Client {
        fn new(service: &MetadataService) -> Self {
            Self { connection: BufReader::new(UnixStream::connect(service.socket()).unwrap()), token: None }
        }

        fn with_token(service: &MetadataService) -> Self {
            let mut client = Self::new(service);
            let (status, token) =
                client.ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n");
            assert_eq!(status, 200);
            client.token = Some(token);
            client
        }

        fn ask(&mut self, method: &str, path: &str, headers: &str) -> (u16, String) {
            let token = self.token.iter().map(|token| format!("x-aws-EC2-metadata-token: {token}\r\n"));
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\n{}{headers}\r\n",
                token.collect::<String>()
            );
            self.connection.get_mut().write_all(head.as_bytes()).unwrap();
            self.answer()
        }

        fn answer(&mut self) -> (u16, String) {
            let mut line = String::new();
            self.connection.read_line(&mut line).unwrap();
            let status = line.split(' ').nth(1).unwrap().parse().unwrap();
            let mut length = 0;
            while line != "\r\n" {
                line.clear();
                self.connection.read_line(&mut line).unwrap();
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            self.connection.read_exact(&mut body).unwrap();
            (status, String::from_utf8(body).unwrap())
        }

        fn get(&mut self, path: &str) -> (u16, String) {
            self.ask("GET", path, "")
        }
    }

    fn service(instance: Instance) -> (tempfile::TempDir, MetadataService) {
        let folder = tempfile::tempdir().unwrap();
        let service = MetadataService::start(&folder.path().join("metadata"), instance).unwrap();
        (folder, service)
    }

    #[test]
    fn nothing_is_told_without_a_token() {
        let (_folder, service) = service(instance());
        let mut client = Client::new(&service);
        assert_eq!(client.get("/latest/meta-data/").0, 401);
        assert_eq!(client.get("/").0, 401);
        for wrong in ["", "0", "21601", "-1", "x"] {
            let header = format!("X-aws-ec2-metadata-token-ttl-seconds: {wrong}\r\n");
            assert_eq!(client.ask("PUT", "/latest/api/token", &header).0, 400, "{wrong}");
        }
        assert_eq!(client.ask("PUT", "/latest/api/token", "").0, 400);
        let proxied = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: 10.0.0.1\r\n";
        assert_eq!(client.ask("PUT", "/latest/api/token", proxied).0, 403);
        client.token = Some("5460-0123456789abcdef0".into());
        assert_eq!(client.get("/latest/meta-data/").0, 401);
    }

    #[test]
    fn tokens_are_checked_and_end() {
        let shared = Shared { instance: instance(), started: Instant::now() };
        assert!(shared.accepts(&shared.token(1_000_000)));
        assert!(!shared.accepts(&shared.token(0)));
        let longer = shared.token(1_000).replacen(&format!("{:x}", 1_000), &format!("{:x}", 2_000), 1);
        assert!(!shared.accepts(&longer));
    }

    /// Walks a tree as cloud-init does: an entry with a slash is a folder, one with `=` a key.
    fn crawl(client: &mut Client, folder: &str, leaves: &mut Vec<(String, String)>) {
        let (status, listing) = client.get(folder);
        assert_eq!(status, 200, "{folder}");
        for entry in listing.lines() {
            if entry.ends_with('/') {
                crawl(client, &format!("{folder}{entry}"), leaves);
                continue;
            }
            let path = match entry.split_once('=') {
                Some((index, _)) => format!("{folder}{index}/openssh-key"),
                None => format!("{folder}{entry}"),
            };
            let (status, content) = client.get(&path);
            assert_eq!(status, 200, "{path}");
            leaves.push((path, content));
        }
    }

    #[test]
    fn every_listed_entry_is_there() {
        let (_folder, service) = service(instance());
        let mut client = Client::with_token(&service);
        let (_, versions) = client.get("/");
        assert!(versions.lines().any(|version| version == "2021-03-23"));
        for version in versions.lines() {
            let mut leaves = Vec::new();
            crawl(&mut client, &format!("/{version}/meta-data/"), &mut leaves);
            let leaf = |name: &str| {
                let path = format!("/{version}/meta-data/{name}");
                leaves.iter().find(|(leaf, _)| *leaf == path).map(|(_, content)| content.as_str())
            };
            assert_eq!(leaf("instance-id"), Some("i-0123456789abcdef0"));
            assert_eq!(leaf("public-keys/0/openssh-key"), Some("ssh-ed25519 AAAA bakehouse"));
            assert_eq!(leaf("block-device-mapping/root"), Some("/dev/xvda"));
            assert_eq!(leaf("placement/availability-zone"), Some("locala"));
            assert_eq!(leaf("local-hostname"), Some("ip-172-31-0-15.local.compute.internal"));
            let card = format!("network/interfaces/macs/{GUEST_MAC}/device-number");
            assert_eq!(leaf(&card), Some("0"));
        }
        assert_eq!(client.get("/latest/meta-data/public-keys/").1, "0=bakehouse");
        assert_eq!(client.get("/latest/dynamic/instance-identity").1, "document");
        let (_, document) = client.get("/latest/dynamic/instance-identity/document");
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["instanceId"], "i-0123456789abcdef0");
        assert_eq!(client.get("/latest/meta-data/tags/instance/").0, 404);
        assert_eq!(client.get("/2031-01-01/meta-data/").0, 404);
        assert_eq!(client.get("/latest/meta-data/ami-id/x").0, 404);
    }

    #[test]
    fn user_data_is_given_as_it_is_or_not_at_all() {
        let (_folder, without) = service(instance());
        assert_eq!(Client::with_token(&without).get("/latest/user-data").0, 404);
        let (_folder, with) = service(Instance { user_data: Some(b"#cloud-config\n".into()), ..instance() });
        assert_eq!(Client::with_token(&with).get("/2021-03-23/user-data"), (200, "#cloud-config\n".into()));
    }

    #[test]
    fn what_is_not_http_is_refused_and_a_body_is_read_past() {
        let (_folder, service) = service(instance());
        for nonsense in ["hello\r\n\r\n", "GET / SSH/2\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"] {
            let mut client = Client::new(&service);
            client.connection.get_mut().write_all(nonsense.as_bytes()).unwrap();
            assert_eq!(client.answer().0, 400, "{nonsense:?}");
        }
        let mut client = Client::new(&service);
        client.connection.get_mut().write_all(&[b'a'; LONGEST_HEAD as usize]).unwrap();
        assert_eq!(client.answer().0, 400);

        let mut client = Client::new(&service);
        let put = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 5\r\n\r\nhello";
        client
            .connection
            .get_mut()
            .write_all(format!("PUT /latest/api/token HTTP/1.1\r\n{put}").as_bytes())
            .unwrap();
        assert_eq!(client.answer().0, 200);
        assert_eq!(client.ask("POST", "/latest/meta-data/", "").0, 405);
        assert_eq!(client.ask("PUT", "/latest/meta-data/", "").0, 404);
    }

    #[test]
    fn a_guest_that_opens_connections_without_end_gets_no_more_than_some() {
        let (_folder, service) = service(instance());
        let mut held: Vec<Client> = (0..MOST_CONNECTIONS).map(|_| Client::with_token(&service)).collect();
        let mut more = Client::new(&service);
        let closed = more.connection.read(&mut [0]);
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        assert_eq!(held[0].get("/latest/meta-data/ami-id").0, 200);
        drop(held);
        // Their threads end in their own time.
        let answered = |_| {
            let mut client = Client::new(&service);
            let asked = client.connection.get_mut().write_all(b"GET / HTTP/1.1\r\n\r\n");
            asked.is_ok() && client.connection.read_line(&mut String::new()).is_ok_and(|read| read > 0)
        };
        assert!((0..1_000_000).any(answered));
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let (_folder, service) = service(instance());
        let mut client = Client::new(&service);
        let header = "X-Header: value\r\n".repeat(LONGEST_HEAD as usize / 16);
        let head = format!("GET / HTTP/1.1\r\n{header}");
        client.connection.get_mut().write_all(&head.as_bytes()[..LONGEST_HEAD as usize]).unwrap();
        assert_eq!(client.answer().0, 400);
    }
}
