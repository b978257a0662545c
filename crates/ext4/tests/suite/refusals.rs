//! What cannot be written is refused in words.

use block::{MIB, Origin};
use ext4::{Error, NoRoom, Object, Options, Placement, Run, SimplePlacement, Space};
use tree::{Entry, Node, Tree};

use crate::images::{options, path};

fn refusal(options: &Options, change: impl FnOnce(&mut Tree)) -> Error {
    let mut tree = Tree::new(Entry::directory(0o755));
    change(&mut tree);
    ext4::write(&tree, options, &SimplePlacement).unwrap_err()
}

fn with_attribute(name: &str, value: Vec<u8>) -> Error {
    refusal(&options(16 * MIB), |tree| {
        let mut entry = Entry::file(0o644, "", Origin::Configured);
        entry.meta.xattrs.insert(name.as_bytes().to_vec(), value);
        tree.insert(path("etc"), entry);
    })
}

#[test]
fn sizes_and_options() {
    let nothing = |_: &mut Tree| ();
    for size in [0, 4096, 8 * MIB - 4096, 16 * MIB + 1, u64::MAX] {
        assert!(matches!(refusal(&options(size), nothing), Error::Size { size: told } if told == size));
    }
    let label = Options { label: "seventeen bytes !".into(), ..options(16 * MIB) };
    assert_eq!(
        refusal(&label, nothing).to_string(),
        "the option `label` is `seventeen bytes !`: an ext4 label has at most 16 bytes"
    );
    let mounted = Options { last_mounted: "m".repeat(64), ..options(16 * MIB) };
    assert!(matches!(refusal(&mounted, nothing), Error::Option { option: "last_mounted", .. }));
    for time in [-1, 1 << 40] {
        let time = Options { time, ..options(16 * MIB) };
        assert!(matches!(refusal(&time, nothing), Error::Option { option: "time", .. }));
    }
    let reserved = Options { reserved_percent: 51, ..options(16 * MIB) };
    assert!(matches!(refusal(&reserved, nothing), Error::Option { option: "reserved_percent", .. }));
}

#[test]
fn entries() {
    for target in [Vec::new(), vec![b'a'; 4096], b"a\0b".to_vec()] {
        let len = target.len();
        let error = refusal(&options(16 * MIB), |tree| {
            tree.insert(path("link"), Entry::symlink(target, Origin::Configured));
        });
        assert!(matches!(error, Error::Symlink { len: told, .. } if told == len));
    }
    let error = refusal(&options(16 * MIB), |tree| {
        let node = Node::BlockDevice { major: 4096, minor: 0 };
        tree.insert(path("dev"), Entry { node, ..Entry::directory(0o600) });
    });
    assert!(error.to_string().starts_with("the device `/dev` has the numbers 4096:0"), "{error}");
    let error = refusal(&options(16 * MIB), |tree| {
        tree.insert(path("lost+found"), Entry::file(0o644, "", Origin::Configured));
    });
    assert!(matches!(error, Error::LostAndFound));
    let error = refusal(&options(16 * MIB), |tree| {
        tree.insert(path("a/b"), Entry::directory(0o755));
    });
    assert!(matches!(error, Error::Tree(_)));
    let error = refusal(&options(64 * MIB), |tree| {
        tree.insert(path("file"), Entry::file(0o644, "", Origin::Configured));
        for at in 0..65_000 {
            let node = Node::HardLink(path("file"));
            tree.insert(path(&format!("link{at}")), Entry { node, ..Entry::directory(0) });
        }
    });
    assert!(matches!(error, Error::TooManyLinks { links: 65_001, .. }));
}

#[test]
fn attributes() {
    for name in ["user.", "note", "system.data", "trusted", &format!("user.{}", "n".repeat(256))] {
        assert!(matches!(with_attribute(name, Vec::new()), Error::XattrName { .. }), "{name}");
    }
    for value in [vec![], vec![1, 0, 0, 0], vec![2, 0, 0, 0, 1], vec![2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]] {
        assert!(matches!(with_attribute("system.posix_acl_access", value), Error::AccessList { .. }));
    }
    let error = with_attribute("user.note", vec![1; 4060 - 16 - 4 + 1]);
    assert_eq!(
        error.to_string(),
        "the extended attributes of `/etc` need 4064 bytes beside its inode, but one block takes 4060: shorten or drop some"
    );
}

#[test]
fn too_many_files() {
    let error = refusal(&options(8 * MIB), |tree| {
        for at in 0..40_000 {
            tree.insert(path(&format!("file{at}")), Entry::file(0o644, "", Origin::Configured));
        }
    });
    assert!(matches!(error, Error::TooManyInodes { most: 32_768, .. }), "{error}");
}

/// Gives the same answer to every object.
struct Stubborn(Vec<Run>);

impl Placement for Stubborn {
    fn place(&self, objects: &[Object<'_>], _: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
        Ok(objects.iter().map(|_| self.0.clone()).collect())
    }
}

#[test]
fn impossible_placements() {
    let tree = Tree::new(Entry::directory(0o755));
    let refused = |runs: Vec<Run>| {
        let error = ext4::write(&tree, &options(16 * MIB), &Stubborn(runs)).unwrap_err();
        assert!(matches!(error, Error::Placement { .. }), "{error}");
        error.to_string()
    };
    let twice = refused(vec![Run { start: 2000, blocks: 1024 }]);
    assert_eq!(twice, "the placement of Directory `/` is impossible: a block is in use already");
    assert!(refused(vec![Run { start: 0, blocks: 1024 }]).ends_with("a block is in use already"));
    assert!(
        refused(vec![Run { start: 2000, blocks: 1023 }]).ends_with("more or fewer blocks than are wanted")
    );
    assert!(refused(vec![Run { start: 4000, blocks: 1024 }]).ends_with("empty or outside the volume"));
    assert!(refused(vec![Run { start: u64::MAX, blocks: 1024 }]).ends_with("empty or outside the volume"));
    assert!(refused(vec![Run { start: 2000, blocks: 0 }]).ends_with("empty or outside the volume"));
}
