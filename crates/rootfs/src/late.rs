//! What a recipe lays into a root that is finished: pages, greetings and files that nothing which runs while baking
//! looks at. The root without them is the same for every text they may have, and so can be kept from bake to bake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use recipe::{FileSpec, Recipe};
use tree::{Node, Timestamp, Tree, TreePath};

use crate::additions::Additions;
use crate::error::{Error, OnFile};
use crate::lay::Ledger;
use crate::root::{Attributes, Root};
use crate::scan::{Known, scan_with};

/// Folders below which neither maintainer scripts of later triggers, systemctl, mkinitramfs nor grub-mkconfig look.
const QUIET: [&str; 6] =
    ["/var/www", "/srv", "/opt", "/usr/local/share", "/usr/share/nginx/html", "/etc/update-motd.d"];

/// The part of a recipe that is laid into its root last.
#[derive(Clone, Debug, Default)]
pub struct Late {
    /// Nothing but what is late.
    parts: Option<Recipe>,
}

/// Why a late part cannot be laid: something in the root is in its way that only the programs of the root could
/// judge, a link of folders or a file with several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay(pub TreePath);

/// Parts a recipe: what its root is made from, and what is laid into the finished root. A recipe with steps to run
/// has nothing late: its steps may look at everything.
pub fn divide(recipe: &Recipe) -> (Recipe, Late) {
    let mut base = recipe.clone();
    let covers_quiet = |file: &FileSpec| QUIET.iter().any(|quiet| is_below(quiet, &file.path));
    let late_file = |file: &FileSpec| file.owner == "root" && file.group == "root" && is_quiet(&file.path);
    let all_early = !recipe.run.is_empty()
        || recipe.files.iter().any(|file| covers_quiet(file) || is_quiet(&file.path) && !late_file(file));
    if all_early {
        return (base, Late::default());
    }
    let mut late = Recipe { files: Vec::new(), motd: Vec::new(), web: None, ..recipe.clone() };
    late.motd = std::mem::take(&mut base.motd);
    late.web = base.web.take_if(|web| is_quiet(&web.root));
    (late.files, base.files) = std::mem::take(&mut base.files).into_iter().partition(late_file);
    let nothing = late.motd.is_empty() && late.web.is_none() && late.files.is_empty();
    (base, Late { parts: (!nothing).then_some(late) })
}

/// Whether a path is a folder's, or the folder itself.
pub(crate) fn is_below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is in one of the quiet folders, by name alone.
fn is_quiet(path: &str) -> bool {
    !path.split('/').any(|name| matches!(name, "." | "..")) && QUIET.iter().any(|quiet| is_below(path, quiet))
}

impl Late {
    /// Whether there is nothing to lay.
    pub fn is_empty(&self) -> bool {
        self.parts.is_none()
    }

    /// Lays the parts into a root's Tree. Their files are copied into `work`, an empty private folder that must stay as
    /// it is for as long as the Tree is used; they get the time `made`. When something is in the way the Tree stays as it is.
    pub fn lay(&self, tree: &mut Tree, made: i64, work: &Path) -> Result<Result<(), InTheWay>, Error> {
        let Some(parts) = &self.parts else { return Ok(Ok(())) };
        let work = work.canonicalize().on("cannot open", work)?;
        let root = Root::open(&work)?;
        root.set_attributes(b".", Attributes { mode: 0o755, uid: 0, gid: 0, mtime: made })?;
        let mut additions = Additions::new(&root, made);
        additions.motd_web_files(parts)?;
        additions.root_files(parts)?;
        let (ledger, times, packages) = (Ledger::default(), BTreeMap::new(), BTreeMap::new());
        let known = Known {
            ledger: &ledger,
            recipe: &additions.laid,
            time: made,
            times: &times,
            packages: &packages,
        };
        Ok(merge(tree, scan_with(&work, Some(&known))?, made))
    }
}

/// Puts a Tree over another one. Folders that are there keep what they are; files are replaced.
fn merge(tree: &mut Tree, over: Tree, made: i64) -> Result<(), InTheWay> {
    let is_target = |entry: &tree::Entry| match &entry.node {
        Node::HardLink(target) => Some(target.clone()),
        _ => None,
    };
    let linked: BTreeSet<TreePath> = tree.iter().filter_map(|(_, entry)| is_target(entry)).collect();
    for (path, entry) in over.iter().filter(|(path, _)| !path.is_root()) {
        let there = tree.get(path);
        let fits = match (&entry.node, there.map(|there| &there.node)) {
            (_, None) => true,
            (Node::Directory, Some(Node::Directory)) => true,
            (Node::File(_), Some(Node::File(_))) => !linked.contains(path),
            _ => false,
        };
        if !fits {
            return Err(InTheWay(path.clone()));
        }
    }
    let is_there =
        |tree: &Tree, path: &TreePath| tree.get(path).is_some_and(|there| there.node == Node::Directory);
    for (path, entry) in over.iter().filter(|(path, _)| !path.is_root()) {
        if entry.node == Node::Directory && is_there(tree, path) {
            continue;
        }
        tree.insert(path.clone(), entry.clone());
        if let Some(folder) = path.parent().and_then(|parent| tree.get_mut(&parent)) {
            folder.meta.mtime = Timestamp::from_seconds(made);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use block::Origin;
    use recipe::{Arch, LoadOptions};
    use tree::Entry;

    use super::*;

    fn recipe(more: &str) -> Recipe {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.yaml");
        std::fs::write(&path, format!("name: web\n{more}\n")).unwrap();
        recipe::load(&path, &LoadOptions::default()).unwrap().for_arch(Arch::X86_64).unwrap()
    }

    /// What stays early and what is late: motd scripts, web entries, files.
    fn divided(more: &str) -> [(usize, usize, usize); 2] {
        let (base, late) = divide(&recipe(more));
        let count = |recipe: &Recipe| {
            let web = recipe.web.as_ref().map_or(0, |web| web.entries.len());
            (recipe.motd.len(), web, recipe.files.len())
        };
        [count(&base), late.parts.as_ref().map_or((0, 0, 0), count)]
    }

    const MOTD: &str = "motd: {40-hi: \"#!/bin/sh\\necho hi\\n\"}";

    #[test]
    fn pages_and_greetings_are_late_and_what_programs_read_is_not() {
        assert_eq!(divided(MOTD), [(0, 0, 0), (1, 0, 0)]);
        let web = "web: {root: /var/www/html, index.html: hi, a/b.html: ho}";
        assert_eq!(divided(&format!("{MOTD}\n{web}")), [(0, 0, 0), (1, 2, 0)]);
        assert_eq!(divided("web: {root: /etc/site, index.html: hi}"), [(0, 1, 0), (0, 0, 0)]);
        assert_eq!(divided("web: {root: /var/www2, index.html: hi}"), [(0, 1, 0), (0, 0, 0)]);
        let files = "files: [{path: /srv/a, content: x}, {path: /etc/fstab.d/x, content: x}]";
        assert_eq!(divided(files), [(0, 0, 1), (0, 0, 1)]);
        assert_eq!(divided("description: nothing"), [(0, 0, 0), (0, 0, 0)]);
        assert!(divide(&recipe("description: nothing")).1.is_empty());
    }

    #[test]
    fn steps_see_everything_and_so_nothing_is_late() {
        let run = "run: [{name: look, script: ls /var/www}]";
        assert_eq!(divided(&format!("{MOTD}\n{run}")), [(1, 0, 0), (0, 0, 0)]);
    }

    #[test]
    fn what_could_lie_over_a_late_file_keeps_all_early() {
        // Another owner, whom only the root's accounts know.
        let owned = "files: [{path: /srv/a, content: x, owner: www-data}]";
        assert_eq!(divided(&format!("{MOTD}\n{owned}")), [(1, 0, 1), (0, 0, 0)]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("var")).unwrap();
        std::fs::write(
            folder.path().join("r.yaml"),
            format!("name: web\n{MOTD}\nfiles: [{{path: /var, source: var}}]\n"),
        )
        .unwrap();
        let loaded = recipe::load(&folder.path().join("r.yaml"), &LoadOptions::default()).unwrap();
        let (base, late) = divide(&loaded.for_arch(Arch::X86_64).unwrap());
        assert!(late.is_empty() && base.motd.len() == 1 && base.files.len() == 1);
    }

    fn tree(entries: &[(&str, Entry)]) -> Tree {
        let mut tree = Tree::new(Entry::directory(0o755));
        for (path, entry) in entries {
            tree.insert(TreePath::new(path.as_bytes()).unwrap(), entry.clone());
        }
        tree
    }

    fn file(text: &str) -> Entry {
        Entry::file(0o644, text, Origin::Recipe("web".into()))
    }

    #[test]
    fn a_layer_goes_over_folders_and_plain_files() {
        let mut base =
            tree(&[("var", Entry::directory(0o700)), ("var/page", file("old")), ("var/other", file("x"))]);
        let over = tree(&[
            ("var", Entry::directory(0o755)),
            ("var/page", file("new")),
            ("var/sub", Entry::directory(0o755)),
            ("var/sub/a", file("a")),
        ]);
        assert_eq!(merge(&mut base, over, 77), Ok(()));
        let get = |path: &str| base.get(&TreePath::new(path.as_bytes()).unwrap()).unwrap().clone();
        assert_eq!(get("var/page"), file("new"));
        assert_eq!(get("var/sub/a"), file("a"));
        assert_eq!((get("var").meta.mode, get("var").meta.mtime.seconds), (0o700, 77));
        assert_eq!(base.len(), 6);
    }

    #[test]
    fn links_in_the_way_are_told_and_nothing_is_changed() {
        let over = || tree(&[("var", Entry::directory(0o755)), ("var/page", file("new"))]);
        let link = Entry::symlink("elsewhere", Origin::Configured);
        let second = Entry { node: Node::HardLink(TreePath::new(b"var/page").unwrap()), ..file("") };
        for base in [
            tree(&[("var", link.clone())]),
            tree(&[("var", Entry::directory(0o755)), ("var/page", link)]),
            tree(&[("var", Entry::directory(0o755)), ("var/page", Entry::directory(0o755))]),
            tree(&[("var", Entry::directory(0o755)), ("var/page", file("old")), ("var/z", second)]),
        ] {
            let mut changed = base.clone();
            assert!(merge(&mut changed, over(), 77).is_err());
            assert_eq!(changed, base);
        }
    }
}
