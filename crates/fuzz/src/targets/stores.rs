use block::Digest;
use store::format::{
    Catalog, Claims, Folder, Name, PACK_FOOTER, PACK_HEADER, Pack, PackFooter, Root, Snapshot, Table,
    TableKind,
};

use crate::Target;

pub(super) const STORE: Target = Target {
    words: &[
        b"BKHROOT\n",
        b"BKHLIST\n",
        b"BKHSNAP\n",
        b"BKHCLAIM",
        b"BKHPACK\n",
        b"BKHTABL\n",
        b"\nPACKEND",
        b"\x01\0\0\0\0\0\0\0",
    ],
    repair: seal,
    ..Target::new(
        "store",
        "an object of a store: root, list, snapshot, claims, pack or table",
        8 << 10,
        |input| {
            if let Ok(root) = Root::read(input) {
                assert_eq!(root.write(), input, "a root is written as it was read");
            }
            if let Ok(catalog) = Catalog::read(input) {
                assert_eq!(catalog.write(), input, "a list is written as it was read");
            }
            if let Ok(snapshot) = Snapshot::read(input) {
                assert_eq!(snapshot.write(), input, "a snapshot is written as it was read");
                let end = snapshot.size.div_ceil(block::BLOCK_SIZE);
                assert!(snapshot.blocks.iter().all(|(index, _)| *index < end));
            }
            if let Ok(claims) = Claims::read(input) {
                assert_eq!(claims.write(), input, "claims are written as they were read");
            }
            read_pack(input);
            for kind in [TableKind::Blocks, TableKind::Origins] {
                read_table(kind, input);
            }
            if let Ok(text) = std::str::from_utf8(input)
                && let Some(name) = Name::parse(text)
            {
                let key = name.key(Folder::Packs);
                assert!(key.bytes().filter(|byte| *byte == b'/').count() == 1 && !key.contains(".."));
            }
        },
    )
};

fn read_pack(input: &[u8]) {
    let Some(at) = input.len().checked_sub(PACK_FOOTER) else { return };
    let Ok(footer) = PackFooter::read(&input[at..], input.len() as u64) else { return };
    let index = at - footer.index_len();
    assert_eq!(index, footer.index_offset as usize);
    let Ok(pack) = Pack::read(&input[..PACK_HEADER], &input[index..at], &footer) else { return };
    let mut end = PACK_HEADER as u32;
    for entry in &pack.entries {
        assert!(entry.offset == end && entry.len > 0, "frames follow each other");
        end += entry.len;
    }
    assert_eq!(end as usize, index, "frames fill the pack");
}

fn read_table(kind: TableKind, input: &[u8]) {
    let Ok(table) = Table::read(kind, input.to_vec().into()) else { return };
    let packs: Vec<Name> = table.packs().unwrap_or_default().to_vec();
    let name = Name { generation: 0, digest: Digest::of(input) };
    let good = table.check(&name).is_ok();
    for at in 0..table.len() {
        let Ok(id) = table.id(at) else { continue };
        if good {
            assert_eq!(table.position(&id), Ok(Some(at)), "each key of a good table is found");
        } else {
            // Of a damaged one it must not be believed, and not be followed outside.
            let _ = table.position(&id);
        }
        if kind == TableKind::Blocks
            && let Ok(place) = table.place(at)
        {
            assert!(packs.contains(&place.pack));
        }
    }
    let _ = table.position(&Digest([0xff; 32]));
}

/// Makes the checksum at an object's end true.
fn seal(object: &mut [u8]) {
    let len = object.len();
    if object.starts_with(b"BKHPACK\n") {
        let Some(at) = len.checked_sub(PACK_FOOTER) else { return };
        let (mut count, mut start) = ([0; 4], [0; 4]);
        count.copy_from_slice(&object[at..at + 4]);
        start.copy_from_slice(&object[at + 4..at + 8]);
        let start = u32::from_le_bytes(start) as usize;
        let Some(index) = object.get(start..at) else { return };
        let digest = Digest::of(&[&object[..PACK_HEADER.min(len)], index].concat());
        object[at + 8..at + 40].copy_from_slice(&digest.0);
    } else if let Some(footer) = len.checked_sub(72)
        && object[footer..].starts_with(b"BKHTABL\n")
    {
        let digest = Digest::of(&object[footer..footer + 40]);
        object[len - 32..].copy_from_slice(&digest.0);
    } else if let Some(cut) = len.checked_sub(32) {
        let digest = Digest::of(&object[..cut]);
        object[cut..].copy_from_slice(&digest.0);
    }
}
