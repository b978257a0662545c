use std::fmt;
use std::io;
use std::sync::Arc;

use crate::Digest;

/// Bytes that can be read at any place, by many threads at once. They never change.
pub trait ReadAt: Send + Sync {
    /// Fills `buf` from byte `offset` on; an error when the bytes end before `buf` is full.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Immutable bytes with a known length and SHA-256, wherever they are kept. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    id: Digest,
    len: u64,
    bytes: Arc<dyn ReadAt>,
}

impl Content {
    /// Content kept in memory; hashed here.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { id: Digest::of(&bytes), len: bytes.len() as u64, bytes: Arc::new(bytes) }
    }

    /// Content kept elsewhere. The caller vouches that `len` bytes can be read from `bytes` and that their SHA-256
    /// is `id`.
    pub fn new(id: Digest, len: u64, bytes: Arc<dyn ReadAt>) -> Self {
        Self { id, len, bytes }
    }

    /// The SHA-256 of all the bytes.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buf` from byte `offset` on.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, buf)
    }

    /// All the bytes, in memory.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut all = vec![0; usize::try_from(self.len).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.read_at(0, &mut all)?;
        Ok(all)
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.len == other.len
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes, {})", self.len, self.id)
    }
}
