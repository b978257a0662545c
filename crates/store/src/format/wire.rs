use block::Digest;

use super::{FormatError, Name, VERSION};

/// Bytes of an object's head: magic, version, four zeros.
pub(crate) const HEAD: usize = 16;
/// Bytes of the checksum at an object's end.
pub(crate) const SUM: usize = 32;

/// Reads fields one after another; every read is checked against what is left.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// Checks an object's head and the SHA-256 at its end, and reads what is between.
    pub(crate) fn sealed(what: &'static str, magic: &[u8; 8], bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut head = Self::new(what, bytes);
        head.head(magic)?;
        let cut =
            bytes.len().checked_sub(SUM).filter(|cut| *cut >= HEAD).ok_or(head.damaged("it is cut short"))?;
        if Digest::of(&bytes[..cut]).0 != bytes[cut..] {
            return Err(head.damaged("its checksum differs"));
        }
        Ok(Self::new(what, &bytes[HEAD..cut]))
    }

    pub(crate) fn head(&mut self, magic: &[u8; 8]) -> Result<(), FormatError> {
        if self.take(8)? != magic {
            return Err(self.damaged("it does not begin as one"));
        }
        let version = self.u32()?;
        if version > VERSION {
            return Err(FormatError::Newer { what: self.what, found: version });
        }
        if version == 0 || self.u32()? != 0 {
            return Err(self.damaged("its head makes no sense"));
        }
        Ok(())
    }

    pub(crate) fn damaged(&self, why: &'static str) -> FormatError {
        FormatError::Damaged { what: self.what, why }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(self.damaged("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, FormatError> {
        self.array().map(Digest)
    }

    pub(crate) fn name(&mut self) -> Result<Name, FormatError> {
        Ok(Name { generation: self.u32()?, digest: self.digest()? })
    }

    pub(crate) fn text(&mut self) -> Result<String, FormatError> {
        let len = u16::from_le_bytes(self.array()?);
        let text = std::str::from_utf8(self.take(len.into())?);
        text.map(str::to_owned).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    /// How many items of at least `size` bytes follow: never more than the bytes can hold.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, FormatError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / size {
            return Err(self.damaged("it promises more than it holds"));
        }
        Ok(count)
    }

    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("something follows its end")) }
    }
}

/// Writes what [`Reader`] reads.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(magic: &[u8; 8]) -> Self {
        let mut writer = Self(magic.to_vec());
        writer.u32(VERSION);
        writer.u32(0);
        writer
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn digest(&mut self, value: Digest) {
        self.bytes(&value.0);
    }

    pub(crate) fn name(&mut self, value: Name) {
        self.u32(value.generation);
        self.digest(value.digest);
    }

    /// A text of at most 65,535 bytes: names are checked when they come in.
    pub(crate) fn text(&mut self, value: &str) {
        debug_assert!(value.len() <= usize::from(u16::MAX), "a text too long");
        self.bytes(&(value.len() as u16).to_le_bytes());
        self.bytes(value.as_bytes());
    }

    pub(crate) fn count(&mut self, value: usize) {
        debug_assert!(u32::try_from(value).is_ok(), "too many items");
        self.u32(value as u32);
    }

    /// What was written, without a checksum.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Adds the checksum: the finished object.
    pub(crate) fn seal(mut self) -> Vec<u8> {
        let sum = Digest::of(&self.0);
        self.digest(sum);
        self.0
    }
}
