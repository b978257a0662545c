//! What a simulated disk holds: what programs see of it, and what a power cut may leave.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use block::{Digest, Hasher};

use crate::rng::Rng;

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;
const TOP: u64 = 0;

/// Files and folders. A clone shares what is the same.
#[derive(Clone)]
pub(crate) struct Disk {
    nodes: BTreeMap<u64, Arc<Node>>,
    next: u64,
}

#[derive(Clone)]
pub(crate) enum Node {
    File(Vec<Piece>),
    Folder(BTreeMap<String, Name>),
}

/// Bytes of one append.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) bytes: Arc<Vec<u8>>,
    state: Written,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Synced.
    Durable,
    /// In the page cache alone.
    Dirty,
    /// A sync of it failed: the kernel calls it clean and never writes it.
    Dropped,
}

/// What a name leads to, from what is durable to what programs see: all that a power cut may leave.
#[derive(Clone)]
pub(crate) struct Name(Vec<Option<u64>>);

impl Name {
    fn now(&self) -> Option<u64> {
        self.0[self.0.len() - 1]
    }
}

/// What survives of that which is not durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Luck {
    /// Everything: the processes are killed, the machine goes on.
    All,
    /// Nothing.
    Nothing,
    /// All names, no bytes.
    Names,
    /// All names but the n-th that changed, and all bytes.
    AllNamesBut(usize),
    /// Of the names only the n-th that changed, and all bytes.
    OnlyName(usize),
    /// Each name and each sector as it happens.
    Chance(u64),
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::from([(TOP, Arc::new(Node::Folder(BTreeMap::new())))]), next: TOP + 1 }
    }

    fn folder(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            Some(id) if matches!(&*self.nodes[&id], Node::Folder(_)) => Ok(id),
            Some(_) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(missing()),
        }
    }

    /// What a path leads to.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<u64>> {
        let mut at = TOP;
        for part in path.iter().filter(|part| *part != "/") {
            let Node::Folder(names) = &*self.nodes[&at] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            match names.get(&*part.to_string_lossy()).and_then(Name::now) {
                Some(id) => at = id,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn split(path: &Path) -> io::Result<(&Path, String)> {
        let (above, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((above, name.to_string_lossy().into_owned()))
    }

    fn set(&mut self, path: &Path, id: Option<u64>) -> io::Result<()> {
        let (above, name) = Self::split(path)?;
        let folder = self.folder(above)?;
        let Node::Folder(names) = self.node(folder) else { return Err(missing()) };
        names.entry(name).or_insert(Name(vec![None])).0.push(id);
        Ok(())
    }

    fn node(&mut self, id: u64) -> &mut Node {
        Arc::make_mut(self.nodes.get_mut(&id).expect("a node that is known"))
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if self.find(path)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next;
        self.set(path, Some(id))?;
        self.next += 1;
        self.nodes.insert(id, Arc::new(node));
        Ok(id)
    }

    pub(crate) fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.make(path, Node::File(Vec::new()))
    }

    pub(crate) fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.make(path, Node::Folder(BTreeMap::new())).map(drop)
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?.ok_or_else(missing)?;
        self.set(to, Some(id))?;
        self.set(from, None)
    }

    pub(crate) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?.ok_or_else(missing)?;
        self.set(path, None)
    }

    pub(crate) fn append(&mut self, id: u64, bytes: &[u8]) {
        if let Node::File(pieces) = self.node(id) {
            pieces.push(Piece { bytes: Arc::new(bytes.to_vec()), state: Written::Dirty });
        }
    }

    fn turn(&mut self, id: u64, to: Written) {
        if let Node::File(pieces) = self.node(id) {
            pieces
                .iter_mut()
                .filter(|piece| piece.state == Written::Dirty)
                .for_each(|piece| piece.state = to);
        }
    }

    pub(crate) fn sync(&mut self, id: u64) {
        self.turn(id, Written::Durable);
    }

    /// A sync that failed.
    pub(crate) fn drop_dirty(&mut self, id: u64) {
        self.turn(id, Written::Dropped);
    }

    pub(crate) fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        let id = self.folder(path)?;
        let Node::Folder(names) = self.node(id) else { return Err(missing()) };
        names.values_mut().for_each(|name| name.0 = vec![name.now()]);
        names.retain(|_, name| name.now().is_some());
        Ok(())
    }

    /// Names of a folder that changed since it was last synced.
    pub(crate) fn changed(&self, path: &Path) -> Vec<&str> {
        let Ok(id) = self.folder(path) else { return Vec::new() };
        let Node::Folder(names) = &*self.nodes[&id] else { return Vec::new() };
        names.iter().filter(|(_, name)| name.0.len() > 1).map(|(text, _)| text.as_str()).collect()
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<(String, u64, bool)>> {
        let id = self.folder(path)?;
        let Node::Folder(names) = &*self.nodes[&id] else { return Err(missing()) };
        let there = names.iter().filter_map(|(text, name)| Some((text, name.now()?)));
        Ok(there
            .map(|(text, id)| match &*self.nodes[&id] {
                Node::File(_) => (text.clone(), self.len(id), false),
                Node::Folder(_) => (text.clone(), 0, true),
            })
            .collect())
    }

    /// The files in the folders of a folder.
    pub(crate) fn files(&self, path: &Path) -> Vec<String> {
        let folders = self.list(path).unwrap_or_default().into_iter().filter(|(.., folder)| *folder);
        let inside = |(name, ..): (String, u64, bool)| {
            let listed = self.list(&path.join(&name)).unwrap_or_default();
            listed.into_iter().map(move |(file, ..)| format!("{name}/{file}"))
        };
        folders.flat_map(inside).collect()
    }

    fn pieces(&self, id: u64) -> &[Piece] {
        match &*self.nodes[&id] {
            Node::File(pieces) => pieces,
            Node::Folder(_) => &[],
        }
    }

    pub(crate) fn len(&self, id: u64) -> u64 {
        self.pieces(id).iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    /// Bytes that files with names take: whole sectors, and one more for each file.
    pub(crate) fn used(&self) -> u64 {
        self.used_with(None) - SECTOR as u64
    }

    /// [`Disk::used`] when a file grows by some bytes, or there is one more.
    pub(crate) fn used_with(&self, growth: Option<(u64, u64)>) -> u64 {
        let mut named = std::collections::BTreeSet::new();
        self.walk(&mut |name| named.extend(name.now()));
        let sectors = |len: u64| (len.div_ceil(SECTOR as u64) + 1) * SECTOR as u64;
        let files = named.iter().filter(|id| matches!(&*self.nodes[id], Node::File(_)));
        let more = |file: &u64| growth.filter(|(grows, _)| grows == file).map_or(0, |(_, more)| more);
        let taken: u64 = files.map(|file| sectors(self.len(*file) + more(file))).sum();
        taken + if growth.is_none() { sectors(0) } else { 0 }
    }

    pub(crate) fn bytes(&self, id: u64) -> Vec<u8> {
        self.pieces(id).iter().flat_map(|piece| piece.bytes.iter().copied()).collect()
    }

    pub(crate) fn read_at(&self, id: u64, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut start, mut filled) = (0, 0);
        for piece in self.pieces(id) {
            let end = start + piece.bytes.len() as u64;
            let at = offset + filled as u64;
            if at >= start && at < end && filled < buf.len() {
                let from = (at - start) as usize;
                let len = (buf.len() - filled).min(piece.bytes.len() - from);
                buf[filled..filled + len].copy_from_slice(&piece.bytes[from..from + len]);
                filled += len;
            }
            start = end;
        }
        if filled == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Changes one byte of a file where it lies: how a test stands in for a disk that rots.
    pub(crate) fn flip(&mut self, path: &Path, at: usize) {
        let id = self.find(path).expect("a path").expect("a file");
        let mut bytes = self.bytes(id);
        bytes[at] ^= 0x10;
        *self.node(id) = Node::File(vec![Piece { bytes: Arc::new(bytes), state: Written::Durable }]);
    }

    /// How many names changed since their folders were synced.
    pub(crate) fn changed_names(&self) -> usize {
        let mut count = 0;
        self.walk(&mut |name| count += usize::from(name.0.len() > 1));
        count
    }

    /// Whether there is anything that a power cut may take.
    pub(crate) fn is_durable(&self) -> bool {
        let dirty = |node: &Arc<Node>| match &**node {
            Node::File(pieces) => pieces.iter().any(|piece| piece.state != Written::Durable),
            Node::Folder(names) => names.values().any(|name| name.0.len() > 1),
        };
        !self.nodes.values().any(dirty)
    }

    fn walk(&self, see: &mut dyn FnMut(&Name)) {
        for node in self.nodes.values() {
            if let Node::Folder(names) = &**node {
                names.values().for_each(&mut *see);
            }
        }
    }

    /// The disk when power comes back: everything on it is durable.
    pub(crate) fn survivor(&self, luck: Luck) -> Self {
        let mut rng = match luck {
            Luck::Chance(seed) => Rng::new(seed),
            _ => Rng::new(0),
        };
        let mut after = Self { nodes: BTreeMap::new(), next: self.next };
        let mut changed = 0;
        for (id, node) in &self.nodes {
            let node = match &**node {
                Node::File(pieces) => Node::File(surviving_bytes(pieces, luck, &mut rng)),
                Node::Folder(names) => {
                    let mut left = BTreeMap::new();
                    for (text, name) in names {
                        let values = &name.0;
                        let number = changed;
                        changed += usize::from(values.len() > 1);
                        let chosen = match luck {
                            _ if values.len() == 1 => 0,
                            Luck::All | Luck::Names => values.len() - 1,
                            Luck::Nothing => 0,
                            Luck::AllNamesBut(n) if n == number => 0,
                            Luck::AllNamesBut(_) => values.len() - 1,
                            Luck::OnlyName(n) if n == number => values.len() - 1,
                            Luck::OnlyName(_) => 0,
                            Luck::Chance(_) => rng.below(values.len()),
                        };
                        if values[chosen].is_some() {
                            left.insert(text.clone(), Name(vec![values[chosen]]));
                        }
                    }
                    Node::Folder(left)
                }
            };
            after.nodes.insert(*id, Arc::new(node));
        }
        after.forget_unnamed();
        after
    }

    fn forget_unnamed(&mut self) {
        let mut named = std::collections::BTreeSet::from([TOP]);
        let mut open = vec![TOP];
        while let Some(id) = open.pop() {
            if let Some(Node::Folder(names)) = self.nodes.get(&id).map(|node| &**node) {
                for id in names.values().filter_map(Name::now) {
                    if named.insert(id) {
                        open.push(id);
                    }
                }
            }
        }
        self.nodes.retain(|id, _| named.contains(id));
    }

    /// What programs see, as one digest; without the folders of this name.
    pub(crate) fn fingerprint(&self, without: Option<&str>) -> Digest {
        let mut hasher = Hasher::new();
        self.hash_folder(TOP, without, &mut hasher);
        hasher.finish()
    }

    fn hash_folder(&self, id: u64, without: Option<&str>, hasher: &mut Hasher) {
        let Node::Folder(names) = &*self.nodes[&id] else { return };
        for (text, name) in names.iter().filter(|(text, _)| Some(text.as_str()) != without) {
            let Some(id) = name.now() else { continue };
            hasher.field(text.as_bytes());
            match &*self.nodes[&id] {
                Node::File(_) => hasher.field(&self.bytes(id)),
                Node::Folder(_) => {
                    hasher.field(b"(");
                    self.hash_folder(id, without, hasher);
                    hasher.field(b")");
                }
            }
        }
    }
}

/// A file after a power cut: what was synced, and of the rest what luck leaves. The length may be anything between.
fn surviving_bytes(pieces: &[Piece], luck: Luck, rng: &mut Rng) -> Vec<Piece> {
    let all_kept = matches!(luck, Luck::All) || pieces.iter().all(|piece| piece.state == Written::Durable);
    if all_kept {
        return pieces.iter().map(|piece| Piece { state: Written::Durable, ..piece.clone() }).collect();
    }
    let (torn, cut, gone) = match luck {
        Luck::Chance(_) => {
            let ways =
                [(false, false, false), (false, false, true), (false, true, false), (true, false, false)];
            ways[rng.below(ways.len())]
        }
        Luck::Nothing | Luck::Names => (false, false, true),
        _ => (false, false, false),
    };
    let mut bytes = Vec::new();
    let mut durable = 0;
    for piece in pieces {
        let start = bytes.len();
        bytes.extend_from_slice(&piece.bytes);
        match piece.state {
            Written::Durable => durable = bytes.len(),
            Written::Dirty if torn => tear(&mut bytes[start..], start, rng),
            Written::Dirty => {}
            Written::Dropped => bytes[start..].fill(0),
        }
    }
    let len = match (gone, cut) {
        (true, _) => durable,
        (_, true) => durable + rng.below(bytes.len() - durable + 1),
        _ => bytes.len(),
    };
    bytes.truncate(len);
    vec![Piece { bytes: Arc::new(bytes), state: Written::Durable }]
}

/// Sectors as they were written, as zeros, or as what lay there before. `start` is where the bytes begin in their file.
fn tear(bytes: &mut [u8], start: usize, rng: &mut Rng) {
    let mut at = 0;
    while at < bytes.len() {
        let end = (((start + at) / SECTOR + 1) * SECTOR - start).min(bytes.len());
        match rng.below(4) {
            0 => bytes[at..end].fill(0),
            1 => bytes[at..end].copy_from_slice(&rng.bytes(end - at)),
            _ => {}
        }
        at = end;
    }
}
