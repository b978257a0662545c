//! `store …`: the block store from the command line.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ::store::{
    Backend, ChosenId, Existing, GcOptions, GcPlan, GcReport, GetOptions, Hurt, LocalBackend, PackPlan,
    PutOptions, PutReport, Record, Repaired, Source, Stat, Store, VerifyOptions, VerifyReport, Way,
};
use anyhow::Result;
use bake::{Report, Unit};
use clap::{Args, Subcommand};
use ec2::Ec2;
use formats::Container;
use serde_json::{Value, json};

use crate::init::Refused;
use crate::surroundings::{now, store_folder};
use crate::terminal::{Paint, Terminal, bytes, print, print_json, say};
use crate::{DONE, FAILED};

#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    #[command(subcommand)]
    command: StoreCommand,
    /// The store: a folder [default: that of BAKEHOUSE_STORE, else bakehouse/store in the user's data folder]
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Keep a raw image as a snapshot; the store is made when it is not there
    Put {
        /// The raw image: a file or a block device
        file: PathBuf,
        /// The snapshot's name [default: the file's, without its ending]
        #[arg(long)]
        name: Option<String>,
        /// The snapshot that this one follows, by name or id; only noted
        #[arg(long, value_name = "SNAPSHOT")]
        parent: Option<String>,
    },
    /// Write a snapshot to a raw image; of one that is there only what differs
    Get {
        /// The snapshot, by name or id
        snapshot: String,
        /// The file to write
        file: PathBuf,
    },
    /// List the snapshots in the order in which they came; a name that several have means the last of them
    Ls,
    /// Say what the store holds and what it saves
    Stat,
    /// Read everything and look for damage
    ///
    /// Names each damaged block and the snapshots that it hurts. With --repair damaged blocks are no longer counted on, so
    /// that putting an image that has them heals them, and a store whose root is lost gets a new one; nothing is deleted.
    Verify {
        /// Only the N-th of M parts
        #[arg(long, value_name = "N/M", value_parser = part)]
        part: Option<(u64, u64)>,
        /// Set damaged blocks aside, and make a root where it is lost
        #[arg(long)]
        repair: bool,
    },
    /// Free what no snapshot needs
    Gc {
        /// Say what would be freed, and free nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not wait for those who write to the store now; some of the room is free after later collections
        #[arg(long)]
        no_wait: bool,
    },
    /// Take snapshots out of the store; `gc` frees their room
    Forget {
        /// The snapshots, by name or id
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<String>,
    },
}

/// `N/M`.
fn part(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(n, m)| Some((n.parse().ok()?, m.parse().ok()?)));
    match parts {
        Some((n, m)) if 1 <= n && n <= m => Ok((n, m)),
        _ => Err("write 1/4 for the first of four parts".to_owned()),
    }
}

/// Shows the store's progress.
struct Bar<'a> {
    terminal: &'a Terminal,
    unit: Unit,
    total: AtomicU64,
    done: AtomicU64,
}

impl<'a> Bar<'a> {
    fn new(terminal: &'a Terminal, what: &str, unit: Unit) -> Self {
        terminal.started(what);
        Self { terminal, unit, total: AtomicU64::new(0), done: AtomicU64::new(0) }
    }
}

impl ::store::Progress for Bar<'_> {
    fn begin(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.terminal.progress(done, Some(self.total.load(Ordering::Relaxed)), self.unit, "");
    }
}

/// `bakehouse store`.
pub(crate) fn store(arguments: &StoreArguments) -> Result<u8> {
    let place = store_folder(arguments.store.as_deref())?;
    let backend = || -> Arc<dyn Backend> { Arc::new(LocalBackend::new(&place)) };
    let terminal = Terminal::new();
    let started = Instant::now();
    let seconds = || started.elapsed().as_secs_f64();
    let json = arguments.json;
    let code = match &arguments.command {
        StoreCommand::Put { file, name, parent } => {
            // Before a store is made for nothing.
            let kind = std::fs::metadata(file).map_err(|source| {
                let (path, action) = (file.clone(), "looking at the image");
                ::store::Error::Image(formats::Error::Io { path, action, source })
            })?;
            if !kind.is_file() && !kind.file_type().is_block_device() {
                let reason = "is neither a file nor a block device: write its bytes to a file, and put that";
                return Err(Refused { path: file.clone(), reason }.into());
            }
            // What cannot be read is told by the put itself.
            let reason = match Container::of(file).ok().flatten() {
                Some(Container::Vmdk) => Some(
                    "is a VMDK file, not a disk's bytes: put the raw file, or write one with `qemu-img convert -O raw`",
                ),
                Some(Container::Qcow2) => Some(
                    "is a qcow2 file, not a disk's bytes: write them with `qemu-img convert -O raw`, and put those",
                ),
                None => None,
            };
            if let Some(reason) = reason {
                return Err(Refused { path: file.clone(), reason }.into());
            }
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.as_deref().unwrap_or(&stem);
            ::store::check_name(name)?;
            let store = match parent {
                // There is none in a store that is not there.
                Some(_) => Store::open(backend())?,
                None => Store::create(backend())?,
            };
            let parent = parent.as_deref().map(|parent| store.find(parent)).transpose()?;
            let bar = Bar::new(&terminal, "put", Unit::Bytes);
            let options = PutOptions {
                name,
                id: ChosenId::Derived,
                parent: parent.map(|parent| parent.id),
                time: now()?,
                progress: &bar,
            };
            let put = store.put(Source::File(file), &options);
            terminal.close();
            let put = put?;
            show(json, put_json(&put, seconds()), || put_text(&put, seconds()))?;
            DONE
        }
        StoreCommand::Get { snapshot, file } => {
            let store = Store::open(backend())?;
            let record = store.find(snapshot)?;
            let own = place.canonicalize()?;
            let inside = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&own));
            if inside(file) || file.parent().is_some_and(inside) {
                return Err(::store::Error::InStore { path: file.clone() }.into());
            }
            let bar = Bar::new(&terminal, "get", Unit::Bytes);
            let options = GetOptions { existing: Existing::Update, sync: true, progress: &bar };
            let got = store.get(&record, file, &options);
            terminal.close();
            let got = got?;
            let way = match got.way {
                Way::New => "new",
                Way::Cloned => "cloned",
                Way::InPlace => "in-place",
            };
            let value = json!({
                "snapshot_id": got.snapshot_id.to_string(), "name": record.name, "file": file, "size": got.size,
                "blocks": got.blocks, "written_blocks": got.written_blocks, "written_bytes": got.written_bytes,
                "read_bytes": got.read_bytes, "way": way, "seconds": seconds(),
            });
            show(json, value, || {
                let (size, written) = (bytes(got.size), bytes(got.written_bytes));
                let file = file.display();
                vec![format!("{file}: {} ({size}), {written} written in {:.1} s", record.name, seconds())]
            })?;
            DONE
        }
        StoreCommand::Ls => {
            let records = Store::open(backend())?.list()?;
            let snapshots: Vec<_> = records.iter().map(record_json).collect();
            show(json, json!({ "snapshots": snapshots }), || records.iter().map(record_text).collect())?;
            DONE
        }
        StoreCommand::Stat => {
            let stat = Store::open(backend())?.stat()?;
            show(json, stat_json(&place, &stat), || stat_text(&place, &stat))?;
            DONE
        }
        StoreCommand::Verify { part, repair } => verify(backend(), *part, *repair, json, &terminal)?,
        StoreCommand::Gc { dry_run, no_wait } => {
            let store = Store::open(backend())?;
            let bar = Bar::new(&terminal, "gc", Unit::Things);
            let plan = store.plan_gc(&bar);
            let done = match (plan, dry_run) {
                (Ok(plan), true) => Ok((plan, None)),
                (Ok(plan), false) => {
                    let options = GcOptions { wait: !no_wait, progress: &bar };
                    store.execute_gc(&options).map(|report| (plan, Some(report)))
                }
                (Err(error), _) => Err(error),
            };
            terminal.close();
            let (plan, report) = done?;
            let done = report.as_ref().map(|report| {
                json!({
                    "deleted_packs": report.deleted_packs, "condemned_packs": report.condemned_packs,
                    "freed_bytes": report.freed_bytes, "copied_bytes": report.copied_bytes,
                    "damaged_blocks": report.damaged_blocks,
                })
            });
            show(json, json!({ "plan": plan_json(&plan), "done": done }), || {
                let mut lines = plan_text(&plan);
                match &report {
                    None => lines.push("nothing was done; without --dry-run it is".to_owned()),
                    Some(report) => lines.push(freed_text(report)),
                }
                if let Some(report) = report.as_ref().filter(|report| report.condemned_packs > 0) {
                    lines.push(format!("{} packs go with a later collection", report.condemned_packs));
                }
                lines
            })?;
            DONE
        }
        StoreCommand::Forget { snapshots } => {
            let store = Store::open(backend())?;
            let found: Vec<_> = snapshots.iter().map(|name| store.find(name)).collect::<Result<_, _>>()?;
            let ids: Vec<_> = found.iter().map(|record| record.id).collect();
            let ec2 = Ec2::new(Arc::new(store), catalog::Home::REGION, now()?)?;
            let forgotten = ec2.delete_snapshots(&ids)?;
            let values: Vec<_> = forgotten.iter().map(record_json).collect();
            show(json, json!({ "forgotten": values }), || {
                let mut lines: Vec<_> = forgotten
                    .iter()
                    .map(|record| format!("forgotten: {} {}", record.id, record.name))
                    .collect();
                lines.push("`bakehouse store gc` frees their room".to_owned());
                lines
            })?;
            DONE
        }
    };
    Ok(code)
}

/// A result: as JSON, else as lines for people. Both go to standard output.
pub(crate) fn show(json: bool, value: Value, lines: impl FnOnce() -> Vec<String>) -> Result<()> {
    if json {
        return print_json(&value);
    }
    lines().into_iter().try_for_each(print)
}

fn verify(
    backend: Arc<dyn Backend>,
    part: Option<(u64, u64)>,
    repair: bool,
    json: bool,
    terminal: &Terminal,
) -> Result<u8> {
    let now = now()?;
    let bar = Bar::new(terminal, "verify", Unit::Bytes);
    let options = VerifyOptions { part, quarantine: repair, progress: &bar };
    let done = if repair {
        Store::repair(&backend, &options)
    } else {
        Store::open(backend.clone())
            .and_then(|store| store.verify(&options))
            .map(|report| Repaired { report, rebuilt: None })
    };
    terminal.close();
    let Repaired { report, rebuilt } = done?;
    let lost = rebuilt.as_ref().is_some_and(|rebuilt| !rebuilt.unreadable.is_empty());
    let rebuilt = rebuilt.map(|rebuilt| {
        say(format!("made a new root: {} snapshots, {} packs", rebuilt.snapshots, rebuilt.packs));
        for object in &rebuilt.unreadable {
            say(format!("could not be read for it: {}: {}", object.key, object.why));
        }
        let unreadable =
            rebuilt.unreadable.iter().map(|object| json!({"key": object.key, "why": object.why}));
        json!({
            "packs": rebuilt.packs, "blocks": rebuilt.blocks, "snapshots": rebuilt.snapshots,
            "found_snapshots": rebuilt.found_snapshots, "unreadable": unreadable.collect::<Vec<_>>(),
        })
    });
    // The report is told whatever the account is like.
    let images = Store::open(backend)
        .map_err(ec2::Error::from)
        .and_then(|store| Ec2::new(Arc::new(store), catalog::Home::REGION, now)?.missing_snapshots());
    let (missing, unread) = match images {
        Ok(missing) => (missing, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let mut value = verify_json(&report, rebuilt);
    let images = missing.iter().map(|(image, snapshot)| json!({"image_id": image, "snapshot_id": snapshot}));
    (value["images"], value["account"]) = (images.collect(), json!(unread));
    show(json, value, || {
        let mut lines = verify_text(&report);
        lines.extend(missing.iter().map(|(image, snapshot)| {
            format!("{image} has lost {snapshot}: put it back into the store, or deregister the image")
        }));
        lines.extend(unread.clone());
        lines
    })?;
    let whole = report.is_whole() && !lost && missing.is_empty() && unread.is_none();
    Ok(if whole { DONE } else { FAILED })
}

fn put_json(put: &PutReport, seconds: f64) -> Value {
    json!({
        "snapshot_id": put.snapshot_id.to_string(), "name": put.name, "size": put.size, "data_bytes": put.data_bytes,
        "blocks": put.blocks, "new_blocks": put.new_blocks, "new_bytes": put.new_bytes,
        "stored_bytes": put.stored_bytes, "read_bytes": put.read_bytes, "hashed_bytes": put.hashed_bytes,
        "digest": put.digest.to_hex(), "existed": put.existed, "seconds": seconds,
    })
}

fn put_text(put: &PutReport, seconds: f64) -> Vec<String> {
    let mut lines = vec![format!("{} {} in {seconds:.1} s", put.snapshot_id, put.name)];
    if put.existed {
        lines.push("  was there already".to_owned());
    }
    lines.extend(summary(put.size, put.data_bytes, Some(put.new_bytes), put.stored_bytes));
    lines
}

/// What people want to know: how large it looks, what is in it, what was new, what that takes, what it saves.
fn summary(logical: u64, data: u64, new: Option<u64>, stored: u64) -> Vec<String> {
    let paint = Paint::on_stdout();
    let row = |name: &str, value: u64, what: &str| {
        format!("  {name:8}{:>11}  {}", bytes(value), paint.faint(what)).trim_end().to_owned()
    };
    let saved = data.saturating_sub(stored);
    let percent = 100.0 * saved as f64 / data.max(1) as f64;
    let mut lines = vec![row("logical", logical, "the disk's size"), row("data", data, "that is not empty")];
    lines.extend(new.map(|new| row("new", new, "that the store did not have")));
    lines.push(row("stored", stored, "what it takes"));
    lines.push(row("saved", saved, &format!("{percent:.1} % of the data")));
    lines
}

fn record_json(record: &Record) -> Value {
    json!({
        "snapshot_id": record.id.to_string(), "name": record.name, "size": record.size, "blocks": record.blocks,
        "data_bytes": record.blocks * block::BLOCK_SIZE, "digest": record.digest.to_hex(),
        "parent": record.parent.map(|parent| parent.to_string()), "time": record.time,
    })
}

fn record_text(record: &Record) -> String {
    let (size, data) = (bytes(record.size), bytes(record.blocks * block::BLOCK_SIZE));
    format!("{}  {size:>10} {data:>10}  {}  {}", record.id, catalog::format_time(record.time), record.name)
}

fn stat_json(place: &Path, stat: &Stat) -> Value {
    json!({
        "store": place, "snapshots": stat.snapshots, "logical_bytes": stat.logical_bytes,
        "data_bytes": stat.data_bytes, "unique_blocks": stat.unique_blocks, "packs": stat.packs,
        "stored_bytes": stat.pack_bytes, "other_bytes": stat.other_bytes,
        "saved_bytes": stat.data_bytes.saturating_sub(stat.pack_bytes),
        "quarantined_blocks": stat.quarantined_blocks, "condemned_packs": stat.condemned_packs,
        "generation": stat.generation, "commits": stat.commits,
    })
}

fn stat_text(place: &Path, stat: &Stat) -> Vec<String> {
    let place = place.display();
    let mut lines = vec![format!("{place}: snapshots {}, blocks {}", stat.snapshots, stat.unique_blocks)];
    lines.extend(summary(stat.logical_bytes, stat.data_bytes, None, stat.pack_bytes));
    if stat.quarantined_blocks > 0 {
        lines.push(format!(
            "  {} damaged blocks are set aside: put an image that has them again",
            stat.quarantined_blocks
        ));
    }
    lines
}

fn hurt_json(hurts: &[Hurt]) -> Value {
    let hurts = hurts.iter().map(
        |hurt| json!({"snapshot_id": hurt.snapshot.to_string(), "name": hurt.name, "blocks": hurt.indices}),
    );
    hurts.collect()
}

fn verify_json(report: &VerifyReport, rebuilt: Option<Value>) -> Value {
    let damaged = report.damaged.iter().map(|block| {
        json!({
            "block": block.id.to_hex(), "pack": block.pack, "why": block.why, "healed": block.healed,
            "hurts": hurt_json(&block.hurts),
        })
    });
    let lies = report.lies.iter().map(|lie| {
        json!({"claimed": lie.claimed.to_hex(), "found": lie.found.to_hex(), "hurts": hurt_json(&lie.hurts)})
    });
    let objects = report.objects.iter().map(|object| {
        let snapshot = object.snapshot.as_ref();
        json!({
            "object": object.key, "why": object.why,
            "snapshot_id": snapshot.map(|(id, _)| id.to_string()), "name": snapshot.map(|(_, name)| name),
        })
    });
    json!({
        "whole": report.is_whole(), "snapshots": report.snapshots, "blocks": report.blocks,
        "stored_bytes": report.stored_bytes, "claims": report.claims, "damaged": damaged.collect::<Vec<_>>(),
        "lies": lies.collect::<Vec<_>>(), "objects": objects.collect::<Vec<_>>(),
        "quarantined": report.quarantined, "rebuilt": rebuilt,
    })
}

fn verify_text(report: &VerifyReport) -> Vec<String> {
    let hurts = |hurts: &[Hurt]| {
        let hurts: Vec<_> = hurts
            .iter()
            .map(|hurt| format!("{} ({}; {} of its blocks)", hurt.name, hurt.snapshot, hurt.indices.len()))
            .collect();
        if hurts.is_empty() { "no snapshot".to_owned() } else { hurts.join(", ") }
    };
    let mut lines = Vec::new();
    for block in &report.damaged {
        let place = block.pack.as_deref().unwrap_or("no pack");
        let end = match block.healed {
            true => "the store has it whole elsewhere".to_owned(),
            false => format!("hurts {}", hurts(&block.hurts)),
        };
        lines.push(format!("block {} in {place}: {}; {end}", block.id, block.why));
    }
    for lie in &report.lies {
        let (claimed, found) = (lie.claimed, lie.found);
        lines.push(format!("content {claimed} is {found} in truth; hurts {}", hurts(&lie.hurts)));
    }
    for object in &report.objects {
        let snapshot = object.snapshot.as_ref();
        let of = snapshot.map(|(id, name)| format!(" (snapshot {name}, {id})")).unwrap_or_default();
        lines.push(format!("{}{of}: {}", object.key, object.why));
    }
    if report.quarantined > 0 {
        lines.push(format!(
            "{} blocks are set aside: put an image that has them, and they are whole again",
            report.quarantined
        ));
    }
    let stored = bytes(report.stored_bytes);
    let verdict = if report.is_whole() { "all is whole" } else { "there is damage" };
    lines.push(format!("{verdict}: snapshots {}, blocks {} in {stored}", report.snapshots, report.blocks));
    lines
}

fn pack_json(pack: &PackPlan) -> Value {
    json!({"bytes": pack.bytes, "needed_blocks": pack.needed_blocks, "needed_bytes": pack.needed_bytes})
}

fn plan_json(plan: &GcPlan) -> Value {
    json!({
        "snapshots": plan.snapshots, "needed_blocks": plan.needed_blocks, "needed_bytes": plan.needed_bytes,
        "unneeded_packs": plan.unneeded.iter().map(pack_json).collect::<Vec<_>>(),
        "rewritten_packs": plan.rewritten.iter().map(pack_json).collect::<Vec<_>>(),
        "leftovers": plan.leftovers.len(), "unfinished_bytes": plan.unfinished_bytes, "freed_bytes": plan.freed_bytes(),
    })
}

fn plan_text(plan: &GcPlan) -> Vec<String> {
    let needed = bytes(plan.needed_bytes);
    let mut lines =
        vec![format!("needed by snapshots ({}): {} blocks, {needed}", plan.snapshots, plan.needed_blocks)];
    let packs = |packs: &[PackPlan]| {
        (packs.len(), packs.iter().map(|pack| pack.bytes - pack.needed_bytes).sum::<u64>())
    };
    for ((count, freed), what) in [
        (packs(&plan.unneeded), "packs that nothing needs"),
        (packs(&plan.rewritten), "packs less than half needed, whose rest is copied"),
        (
            (plan.leftovers.len(), plan.leftovers.iter().map(|it| it.len).sum()),
            "leftovers of what was interrupted or replaced",
        ),
    ] {
        if count > 0 {
            lines.push(format!("  {what} ({count}): {}", bytes(freed)));
        }
    }
    if plan.unfinished_bytes > 0 {
        lines.push(format!("  what writers did not finish: {}", bytes(plan.unfinished_bytes)));
    }
    match plan.is_empty() {
        true => lines.push("there is nothing to free".to_owned()),
        false => lines.push(format!("to be freed: {}", bytes(plan.freed_bytes()))),
    }
    lines
}

/// How much more room there is: what was copied to new packs before it was deleted is none.
fn freed_text(report: &GcReport) -> String {
    let (deleted, copied) = (report.freed_bytes, report.copied_bytes);
    let freed = format!("freed {}", bytes(deleted.saturating_sub(copied)));
    match copied {
        0 => freed,
        _ => {
            format!("{freed}: {} deleted, {} of it copied to new packs before", bytes(deleted), bytes(copied))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!(part("1/4"), Ok((1, 4)));
        for wrong in ["0/4", "5/4", "1", "a/b", "1/0"] {
            assert!(part(wrong).is_err(), "{wrong}");
        }
    }
}
