//! Writes a Tree as an ext4 file system, as a BlockMap.
