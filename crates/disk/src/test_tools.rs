//! Other people's programs that look at what we write.

use std::path::Path;

use block::{BlockMap, BlockSource};

pub(crate) use workbench::{run, tool};

/// All bytes of a small disk.
pub(crate) fn bytes(map: &BlockMap) -> Vec<u8> {
    let mut bytes = vec![0; map.len() as usize];
    map.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Writes a disk as a sparse file.
pub(crate) fn write_sparse(map: &BlockMap, path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(map.len()).unwrap();
    for (offset, len) in map.data() {
        let mut bytes = vec![0; len as usize];
        map.read_at(offset, &mut bytes).unwrap();
        file.write_all_at(&bytes, offset).unwrap();
    }
}

/// The lines of 16 bytes that are not all zero, as `offset: bytes`, for golden files; `*` for lines that repeat.
pub(crate) fn hex_lines(map: &BlockMap) -> String {
    let mut lines = String::new();
    for (offset, len) in map.data() {
        let mut bytes = vec![0; len as usize];
        map.read_at(offset, &mut bytes).unwrap();
        let mut previous: &[u8] = &[];
        for (index, line) in
            bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0))
        {
            if line != previous {
                lines += &format!("{:010x}: {}\n", offset + 16 * index as u64, hex::encode(line));
            } else if !lines.ends_with("*\n") {
                lines += "*\n";
            }
            previous = line;
        }
    }
    lines
}

/// Compares with a golden file beside the sources; `BAKEHOUSE_BLESS=1` writes it anew.
pub(crate) fn check_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("BAKEHOUSE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (line, (golden, found)) in golden.lines().zip(found.lines()).enumerate() {
        assert_eq!(
            found,
            golden,
            "{name}, line {}: bytes on disk have changed; if so meant, BAKEHOUSE_BLESS=1",
            line + 1
        );
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "{name}: bytes on disk have changed");
}
