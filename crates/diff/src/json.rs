//! A [`Difference`] as JSON. The shape is documented in docs/json.md.

use inspect::Kind;
use serde_json::{Value, json};

use block::BLOCK_SIZE;

use crate::blocks::{BlockChanges, Stretch, Tally};
use crate::files::{Aspect, Fact, FileChange, FileChanges, FileTotals};
use crate::packages::PackageChanges;
use crate::{Difference, Identity, PartitionChanges, VolumeChanges, shown};

/// All of a difference as one JSON object, every list whole.
pub fn json(difference: &Difference) -> Value {
    json!({
        "a": identity(&difference.a), "b": identity(&difference.b), "same": difference.is_empty(),
        "remarks": difference.remarks,
        "packages": difference.packages.as_ref().map(packages),
        "files": difference.files().map(totals),
        "blocks": blocks(&difference.blocks()),
        "volumes": difference.volumes.iter().map(volume).collect::<Vec<_>>(),
    })
}

fn identity(identity: &Identity) -> Value {
    json!({"given": identity.given, "name": identity.name, "arch": identity.arch})
}

fn packages(packages: &PackageChanges) -> Value {
    let changes = packages.changes.iter().map(|change| {
        let (before, after) = change.step.versions();
        json!({"name": change.name, "change": change.step.word(), "version_a": before, "version_b": after})
    });
    json!({"same": packages.same, "changes": changes.collect::<Vec<_>>()})
}

fn totals(totals: FileTotals) -> Value {
    json!({
        "same": totals.same, "times_only": totals.times, "added": totals.added, "removed": totals.removed,
        "changed": totals.changed, "added_bytes": totals.added_bytes, "removed_bytes": totals.removed_bytes,
        "changed_bytes": totals.changed_bytes,
    })
}

fn blocks(changes: &BlockChanges) -> Value {
    let tally = |tally: Tally| json!({"blocks": tally.blocks, "bytes": tally.bytes});
    json!({
        "block_size": BLOCK_SIZE, "same": tally(changes.same), "moved": tally(changes.moved), "new": tally(changes.new),
        "gone": tally(changes.gone), "increment": tally(changes.differing), "added": tally(changes.added),
    })
}

fn volume(volume: &VolumeChanges) -> Value {
    let stretches = |stretches: &[Stretch]| -> Vec<Value> {
        stretches
            .iter()
            .map(|it| json!({"start": it.start, "blocks": it.len, "state": it.state.word()}))
            .collect()
    };
    json!({
        "device": volume.device, "size_a": volume.sizes.0, "size_b": volume.sizes.1,
        "blocks": blocks(&volume.blocks),
        "stretches_a": stretches(&volume.blocks.before), "stretches_b": stretches(&volume.blocks.after),
        "partitions": volume.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn partition(partition: &PartitionChanges) -> Value {
    let (known, unread) = match &partition.files {
        Ok(known) => (Some(known), None),
        Err(why) => (None, Some(why)),
    };
    json!({
        "number": partition.number, "name": shown(partition.name.as_bytes()),
        "differing_blocks": partition.differing_blocks, "unread": unread.map(|why| shown(why.as_bytes())),
        "files": known.map(FileChanges::totals).map(totals),
        "changes": known.map(|known| known.changes.iter().map(file).collect::<Vec<_>>()),
    })
}

fn file(change: &FileChange) -> Value {
    let attributes = change.aspects.iter().find_map(|aspect| match aspect {
        Aspect::Attributes(names) => Some(names),
        _ => None,
    });
    json!({
        "path": format!("/{}", shown(change.path.as_bytes())), "change": change.word(),
        "what": change.aspects.iter().map(Aspect::word).collect::<Vec<_>>(), "attributes": attributes,
        "a": change.before.as_ref().map(fact), "b": change.after.as_ref().map(fact),
    })
}

fn fact(fact: &Fact) -> Value {
    let (target, device) = match &fact.kind {
        Kind::Symlink(target) => (Some(shown(target)), None),
        Kind::CharDevice(major, minor) => (None, Some(format!("c {major}:{minor}"))),
        Kind::BlockDevice(major, minor) => (None, Some(format!("b {major}:{minor}"))),
        _ => (None, None),
    };
    json!({
        "kind": fact.word(), "size": fact.size, "mode": format!("{:04o}", fact.mode), "uid": fact.uid,
        "gid": fact.gid, "links": fact.links, "target": target, "device": device,
    })
}
