//! Little-endian fields at fixed offsets of a buffer: the way in which every structure of ext4 is written.

pub(crate) fn put16(buf: &mut [u8], at: usize, value: u16) {
    buf[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(buf: &mut [u8], at: usize, value: u32) {
    buf[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The journal alone is big-endian.
pub(crate) fn put32_be(buf: &mut [u8], at: usize, value: u32) {
    buf[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn low16(value: u32) -> u16 {
    (value & 0xffff) as u16
}

pub(crate) fn high16(value: u32) -> u16 {
    (value >> 16) as u16
}

pub(crate) fn low32(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

pub(crate) fn high32(value: u64) -> u32 {
    (value >> 32) as u32
}
