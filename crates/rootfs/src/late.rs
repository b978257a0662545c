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

fn is_below(path: &str, folder: &str) -> bool {
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
