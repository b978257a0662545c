//! Disk image files written from a BlockSource: raw.
