//! The content of a data volume.

use std::path::Path;

use block::Origin;
use tree::{Entry, Timestamp, Tree};

use crate::additions::Additions;
use crate::error::{Error, OnFile};
use crate::root::{Attributes, Root};
use crate::scan::scan;

/// The Tree of a data volume: the files of a folder of the baking machine, owned by root, their modes 0644 or 0755 as
/// they are executable or not; without a folder an empty Tree. Every entry has the time `made`. The files are copied
/// into `work`, an empty private folder that must stay as it is for as long as the Tree is used. The process must
/// have called [`sandbox::enter`] before.
pub fn data_tree(source: Option<&Path>, made: i64, work: &Path) -> Result<Tree, Error> {
    let work = work.canonicalize().on("cannot open", work)?;
    let root = Root::open(&work)?;
    root.set_attributes(b".", Attributes { mode: 0o755, uid: 0, gid: 0, mtime: made })?;
    if let Some(source) = source {
        Additions::new(&root, made).folder_content(source, "volumes")?;
    }
    let mut tree = scan(&work)?;
    for (_, Entry { meta, origin, .. }) in tree.iter_mut() {
        meta.mtime = Timestamp::from_seconds(made);
        *origin = Origin::Recipe("volumes".into());
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tree::{Node, TreePath};

    #[test]
    fn a_folder_becomes_a_tree_that_knows_nothing_of_its_host() {
        use std::os::unix::fs::PermissionsExt;
        if !rustix::process::geteuid().is_root() {
            workbench::left_out("only root can give files to root outside the sandbox's user namespace");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (source, work) = (folder.path().join("source"), folder.path().join("work"));
        std::fs::create_dir_all(source.join("site")).unwrap();
        std::fs::create_dir(&work).unwrap();
        std::fs::write(source.join("site/page"), "text").unwrap();
        std::fs::write(source.join("run"), "#!/bin/sh\n").unwrap();
        let mode = |path: &str, mode| {
            std::fs::set_permissions(source.join(path), PermissionsExt::from_mode(mode)).unwrap();
        };
        mode("site", 0o2775);
        mode("site/page", 0o600);
        mode("run", 0o700);
        let tree = data_tree(Some(&source), 1_000_000_000, &work).unwrap();
        let seen: Vec<_> = tree
            .iter()
            .map(|(path, entry)| (path.to_string(), entry.meta.mode, entry.meta.mtime.seconds))
            .collect();
        let made = 1_000_000_000;
        let wanted = [("", 0o755), ("run", 0o755), ("site", 0o755), ("site/page", 0o644)];
        assert_eq!(seen, wanted.map(|(path, mode)| (path.to_owned(), mode, made)));
        let page = tree.get(&TreePath::new(b"site/page").unwrap()).unwrap();
        assert!(matches!(&page.node, Node::File(content) if content.read_all().unwrap() == b"text"));
        assert_eq!(data_tree(None, made, tempfile::tempdir().unwrap().path()).unwrap().len(), 1);
    }
}
